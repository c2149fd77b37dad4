"""Which objects make room for a new one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.objects import Entry, ObjRef, choose_victims

NOW = 1_000


def entry(name: str, size: int = 10, created: int = 0, expires: int = 2_000) -> Entry:
    return Entry(name, size, created, expires)


def chosen(entries: list[Entry], *, limit: int, need: int, pinned: str = "") -> tuple[str, bool]:
    victims, fits = choose_victims(
        entries, limit=limit, need=need, now_ms=NOW, pinned=lambda one: one.id in pinned
    )
    return "".join(one.id for one in victims), fits


def test_nothing_goes_while_there_is_room() -> None:
    assert chosen([entry("a"), entry("b")], limit=30, need=10) == ("", True)


def test_what_has_expired_goes_first_even_if_it_is_younger() -> None:
    entries = [entry("a", created=1), entry("b", created=2, expires=NOW)]

    assert chosen(entries, limit=20, need=10) == ("b", True)


def test_then_the_oldest_go_until_it_fits() -> None:
    entries = [entry("c", created=3), entry("a", created=1), entry("b", created=2)]

    assert chosen(entries, limit=30, need=15) == ("ab", True)


def test_what_is_mapped_stays_and_counts() -> None:
    entries = [entry("a", created=1, expires=NOW), entry("b", created=2), entry("c", created=3)]

    assert chosen(entries, limit=30, need=10, pinned="a") == ("b", True)
    assert chosen(entries, limit=30, need=10, pinned="abc") == ("", False)


def test_where_it_can_never_fit_nothing_is_sacrificed_for_it() -> None:
    entries = [entry("a"), entry("b", expires=NOW)]

    assert chosen(entries, limit=30, need=31) == ("b", False)


entries_of_any_kind = st.lists(
    st.builds(
        Entry,
        id=st.uuids().map(lambda one: one.hex),
        size=st.integers(0, 50),
        created_ms=st.integers(0, 20),
        expires_ms=st.integers(0, 2 * NOW),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)


@given(entries_of_any_kind, st.integers(0, 300), st.integers(0, 300), st.sets(st.integers(0, 11)))
def test_the_bound_holds_and_no_more_goes_than_must(
    entries: list[Entry], limit: int, need: int, places: set[int]
) -> None:
    pinned = {one.id for place, one in enumerate(entries) if place in places}
    victims, fits = choose_victims(
        entries, limit=limit, need=need, now_ms=NOW, pinned=lambda one: one.id in pinned
    )

    gone = {one.id for one in victims}
    left = [one for one in entries if one.id not in gone]
    assert len(gone) == len(victims)
    assert not gone & pinned
    assert all(one.expires_ms > NOW for one in left if one.id not in pinned)
    assert fits == (sum(one.size for one in left) + need <= limit) or not fits
    live = [one for one in victims if one.expires_ms > NOW]
    if not fits:
        assert not live
        assert sum(one.size for one in entries if one.id in pinned) + need > limit
    elif live:
        # Without the youngest of them it would not have fitted, and none older was spared.
        assert sum(one.size for one in left) + live[-1].size + need > limit
        youngest = max((one.created_ms, one.id) for one in live)
        spared = [one for one in left if one.id not in pinned]
        assert all((one.created_ms, one.id) > youngest for one in spared)


def test_a_reference_says_what_is_wrong_with_it() -> None:
    whole = {
        "id": "a", "size": 1, "digest": "d", "content_type": "x", "created_ms": 1, "expires_ms": 2,
    }  # fmt: skip

    assert ObjRef._validated(whole).size == 1
