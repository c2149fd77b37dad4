from __future__ import annotations

from anyserve.telemetry.gaps import GapCounter


def test_a_whole_stream_is_complete() -> None:
    gaps = GapCounter()
    assert all(gaps.add("s1", 1, seq) for seq in range(5))
    assert gaps.missing == 0
    assert gaps.verdict == "complete"


def test_holes_are_counted_per_life_and_can_be_filled_later() -> None:
    gaps = GapCounter()
    for seq in (0, 4, 9):
        gaps.add("s1", 1, seq)
    gaps.add("s1", 2, 1)
    assert gaps.missing == 8
    assert gaps.missing_by_source == {("s1", 1): 7, ("s1", 2): 1}
    assert gaps.verdict == "incomplete: 8 events missing"
    assert gaps.add("s1", 1, 2)
    assert gaps.add("s1", 1, 1)
    assert gaps.add("s1", 1, 3)
    assert gaps.missing_by_source[("s1", 1)] == 4


def test_repeats_are_recognised_everywhere() -> None:
    gaps = GapCounter()
    for seq in (0, 5, 3):
        assert gaps.add("s1", 1, seq)
    for seq in (0, 3, 5):
        assert not gaps.add("s1", 1, seq)
    assert gaps.missing == 3


def test_a_known_length_shows_a_lost_tail() -> None:
    gaps = GapCounter()
    gaps.add("s1", 1, 0)
    gaps.expect("s1", 1, 3)
    gaps.expect("s2", 1, 2)
    gaps.expect("s1", 1, 1)
    assert gaps.missing_by_source == {("s1", 1): 2, ("s2", 1): 2}
