"""The map between a plan's time and the clock's, when a person changes the pace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyserve.workload.pace import Pace

S = 1_000_000_000


def test_as_planned_a_moment_is_due_so_long_after_the_start() -> None:
    pace = Pace(100 * S)
    assert pace.due_ns(0) == 100 * S
    assert pace.due_ns(7 * S) == 107 * S
    assert pace.plan_ns(99 * S) == 0
    assert pace.plan_ns(107 * S) == 7 * S


def test_twice_as_fast_halves_what_is_left_and_leaves_the_past_alone() -> None:
    pace = Pace(0)
    pace.change(2.0, 4 * S)
    assert pace.due_ns(10 * S) == 7 * S
    assert pace.due_ns(3 * S) == 3 * S
    assert pace.plan_ns(7 * S) == 10 * S


def test_a_pause_moves_what_waits_by_its_length_and_makes_up_for_nothing() -> None:
    pace = Pace(0)
    pace.change(0.0, 4 * S)
    assert pace.due_ns(5 * S) is None
    assert pace.due_ns(4 * S) == 4 * S
    assert pace.plan_ns(1000 * S) == 4 * S
    pace.change(1.0, 10 * S)
    assert pace.due_ns(5 * S) == 11 * S
    assert pace.due_ns(4 * S) == 4 * S


def test_a_change_before_the_start_applies_from_the_start() -> None:
    pace = Pace(10 * S)
    pace.change(2.0, 3 * S)
    assert pace.due_ns(4 * S) == 12 * S
    assert pace.factor == 2.0


@given(
    changes=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, 8.0]), st.integers(0, 20)), max_size=8
    ),
    moments=st.lists(st.integers(0, 200), min_size=1, max_size=20),
)
def test_order_is_kept_and_nothing_is_due_before_the_plan_is_there(
    changes: list[tuple[float, int]], moments: list[int]
) -> None:
    pace = Pace(0)
    now = 0
    for factor, gap in changes:
        now += gap * S
        pace.change(factor, now)
    due = [pace.due_ns(moment * S) for moment in sorted(moments)]
    known = [one for one in due if one is not None]
    assert known == sorted(known)
    assert due[len(known) :] == [None] * (len(due) - len(known))
    for moment, at in zip(sorted(moments), known, strict=False):
        if at >= now:
            assert pace.plan_ns(at) == moment * S or at == now
