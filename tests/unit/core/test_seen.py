from __future__ import annotations

import pytest

from anyserve.core.seen import Ordinals, SettledIds, number_after, split_request_id


def test_ordinals_compact_to_a_watermark_when_the_gap_closes() -> None:
    ordinals = Ordinals()

    assert [ordinals.add(number) for number in (1, 3, 4)] == [True, True, True]
    assert (ordinals.watermark, ordinals.sparse, ordinals.count) == (1, [3, 4], 3)

    assert ordinals.add(2)
    assert (ordinals.watermark, ordinals.sparse, ordinals.count) == (4, [], 4)


def test_an_ordinal_counts_once_below_and_above_the_watermark() -> None:
    ordinals = Ordinals()
    for number in (1, 3):
        ordinals.add(number)

    assert not ordinals.add(1)
    assert not ordinals.add(3)
    assert ordinals.count == 2


def test_a_request_id_names_origin_life_and_number() -> None:
    assert split_request_id("p-1/12/7") == ("p-1", 12, 7)


@pytest.mark.parametrize("text", ["p/1", "p/1/2/3", "p/x/1", "p/1/x"])
def test_an_id_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_request_id(text)


@pytest.mark.parametrize(
    ("request_id", "number"),
    [("p/1/0", 0), ("p/1/120", 120), ("p/1/", -1), ("p/1/x", -1), ("p/1/2/3", -1), ("q/1/2", -1)],
)
def test_the_number_after_a_prefix_is_read_where_there_is_one(request_id: str, number: int) -> None:
    assert number_after("p/1/", request_id) == number


def test_a_life_that_was_asked_for_last_is_forgotten_with_the_next_one() -> None:
    settled = SettledIds()
    settled.add("p/1/5")
    assert "p/1/6" not in settled

    settled.raise_watermark("p", 2, 1)

    assert "p/1/6" in settled
    assert "p/2/6" not in settled


def test_origins_do_not_mix_whoever_was_asked_for_last() -> None:
    settled = SettledIds()
    for request_id in ("p/1/5", "q/3/7", "p/1/8"):
        settled.add(request_id)

    there = [one for one in ("p/1/5", "p/1/7", "q/3/7", "q/3/8", "r/1/5") if one in settled]
    assert there == ["p/1/5", "q/3/7"]


def test_settled_ids_are_remembered_one_by_one() -> None:
    settled = SettledIds()
    settled.add("p/1/5")

    assert "p/1/5" in settled
    assert "p/1/4" not in settled
    assert "q/1/5" not in settled


def test_the_watermark_settles_all_below_it_and_nothing_else() -> None:
    settled = SettledIds()
    settled.add("p/1/9")
    settled.raise_watermark("p", 1, 5)

    assert ["p/1/4" in settled, "p/1/5" in settled, "p/1/9" in settled] == [True, False, True]

    settled.raise_watermark("p", 1, 2)
    assert "p/1/4" in settled, "a watermark never falls"


def test_a_new_life_of_an_origin_settles_all_of_its_older_ones() -> None:
    settled = SettledIds()
    settled.add("p/2/1")

    assert "p/1/99" in settled
    assert "p/2/2" not in settled
    assert "p/3/1" not in settled


def test_news_of_an_older_life_changes_nothing() -> None:
    settled = SettledIds()
    settled.add("p/2/1")
    settled.raise_watermark("p", 1, 100)
    settled.add("p/1/50")

    assert "p/2/1" in settled
    assert "p/2/50" not in settled


def test_numbers_below_the_watermark_are_forgotten_once_they_are_many() -> None:
    settled = SettledIds()
    for number in range(1, 2_001):
        settled.add(f"p/1/{number}")
        settled.raise_watermark("p", 1, number)

    life = settled._lives["p"]
    assert len(life.rest) < 100
    assert all(f"p/1/{number}" in settled for number in (1, 1_000, 2_000))
    assert "p/1/2001" not in settled
