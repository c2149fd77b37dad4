"""Filters as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyserve.errors import UsageError
from anyserve.telemetry.filters import Filter, Row, parse_filter

FIELDS = frozenset({"id", "cap", "state", "wait", "ttft", "kv"})
ROW: Row = {"id": "s1", "cap": ("decode", "decode.heavy"), "state": "saturated", "wait": 9,
       "ttft": 812.0, "kv": 0.94}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "cap:heavy", "CAP:Heavy", "state:lost,saturated", "wait>8", "wait>=9", "wait=9",
        "wait!=8", "ttft>800ms", "ttft>0.8s", "ttft<1min", "kv>90%", "satur", "S1",
        "-state:lost", "-wait<9", 'cap:"decode"', "cap:decode state:satu wait>8", "cap:",
    ],
)  # fmt: skip
def test_what_holds(text: str) -> None:
    assert parse_filter(text, FIELDS).matches(ROW)


@pytest.mark.parametrize(
    "text",
    ["cap:code2", "state:lost,ready", "wait>9", "wait<9", "ttft>1s", "kv>95%", "nobody",
     "-state:saturated", "wait>8 id:s2"],
)  # fmt: skip
def test_what_does_not_hold(text: str) -> None:
    assert not parse_filter(text, FIELDS).matches(ROW)


def test_an_unknown_value_fails_every_comparison() -> None:
    row: Row = {**ROW, "wait": None}
    assert not parse_filter("wait>0", FIELDS).matches(row)
    assert not parse_filter("wait<=0", FIELDS).matches(row)
    assert parse_filter("-wait>0", FIELDS).matches(row)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stat:lost", "did you mean 'state'?"),
        ("wait>many", "look for a text"),
        ('cap:"decode', "write both"),
        ("zzzzz=1", "known: cap, id, kv, state, ttft, wait"),
    ],
)
def test_a_wrong_filter_says_how_to_mend_it(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(text, FIELDS)
    assert says in caught.value.hint


def test_only_the_empty_filter_is_false() -> None:
    assert not parse_filter("  ", FIELDS)
    assert not Filter()
    assert parse_filter("x", FIELDS)


@given(text=st.text(max_size=40))
def test_any_text_is_a_filter_or_a_usage_error(text: str) -> None:
    try:
        wanted = parse_filter(text, FIELDS)
    except UsageError:
        return
    assert wanted.matches(ROW) in {True, False}


_TERMS = st.sampled_from(["cap:heavy", "wait>8", "state:lost", "s1", "kv<50%", "ttft>1s"])


@given(terms=st.lists(_TERMS, max_size=5))
def test_words_are_joined_by_and_and_a_minus_turns_one_round(terms: list[str]) -> None:
    each = [parse_filter(term, FIELDS).matches(ROW) for term in terms]
    assert parse_filter(" ".join(terms), FIELDS).matches(ROW) == all(each)
    turned = [parse_filter(f"-{term}", FIELDS).matches(ROW) for term in terms]
    assert turned == [not one for one in each]
