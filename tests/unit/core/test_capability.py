from __future__ import annotations

import pytest
from builders import LADDER, offer, request

from anyserve.core.capability import Ladder, admits, attributes_match, is_id, is_name
from anyserve.errors import ScenarioError


@pytest.mark.parametrize("text", ["decode", "decode.heavy", "embed-2.large", "a_b", "a" * 64])
def test_lower_case_words_joined_by_marks_name_a_capability(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "Decode", "2d", "decode.", ".decode", "decode..heavy", "de code", "a" * 65]
)
def test_anything_else_does_not(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(("text", "good"), [("s1", True), ("a-b", True), ("a" * 32, True)])
def test_short_lower_case_words_are_ids(text: str, good: bool) -> None:
    assert is_id(text) is good


@pytest.mark.parametrize("text", ["", "a.b", "a/b", "S1", "a" * 33, "a+"])
def test_what_could_break_a_topic_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_every_wanted_attribute_must_be_offered_with_its_value() -> None:
    offered = {"model": "a", "lang": "en"}

    assert attributes_match({}, {})
    assert attributes_match({"model": "a"}, offered)
    assert not attributes_match({"model": "b"}, offered)
    assert not attributes_match({"model": "a", "tier": "1"}, offered)


@pytest.mark.parametrize(("limit", "fits"), [(None, True), (7, True), (6, False)])
def test_prompt_and_requested_tokens_together_are_held_against_the_limit(
    limit: int | None,
    fits: bool,
) -> None:
    assert admits(offer(max_tokens=limit), request(prompt_tokens=4, max_tokens=3)) is fits


def test_rungs_are_listed_from_the_capability_upwards() -> None:
    ladder = Ladder(LADDER)

    assert list(ladder.rungs("decode")) == ["decode", "decode.heavy", "decode.huge"]
    assert list(ladder.rungs("embedding")) == ["embedding"]
    assert ladder.above("decode.heavy") == "decode.huge"
    assert ladder.above("decode.huge") is None


def test_higher_and_lower_are_never_confused() -> None:
    ladder = Ladder(LADDER)

    assert ladder.is_at_or_above("decode", "decode")
    assert ladder.is_at_or_above("decode.huge", "decode")
    assert not ladder.is_at_or_above("decode", "decode.huge")
    assert not ladder.is_at_or_above("embedding", "decode")


def test_a_cycle_is_refused_and_shown_without_the_way_into_it() -> None:
    with pytest.raises(ScenarioError, match="cycle: b -> c -> b") as raised:
        Ladder({"a": "b", "b": "c", "c": "b"})

    assert raised.value.code == "ladder_cycle"


def test_a_capability_that_is_its_own_upgrade_is_a_cycle() -> None:
    with pytest.raises(ScenarioError, match="a -> a"):
        Ladder({"a": "a"})
