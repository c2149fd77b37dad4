"""What a replica has to do when: against a plain list of times."""

from __future__ import annotations

import random

from anyserve.core.order import NEVER
from anyserve.core.replica.due import Due
from anyserve.core.replica.slot import AttemptKey


def key(number: int) -> AttemptKey:
    return f"p/1/{number}", 1


def test_nothing_is_due_where_nothing_is_planned() -> None:
    assert Due().soonest_ns == NEVER


def test_heartbeats_and_ends_come_in_order_of_time() -> None:
    due = Due()
    due.plan_end(200, key(1))
    due.plan(150, None)
    due.plan_end(300, key(2))
    due.plan(250, key(3))

    assert due.planned() == [(150, None), (200, key(1)), (250, key(3)), (300, key(2))]
    assert [(due.soonest_ns, due.pop()) for _ in range(4)] == [
        (150, None), (200, key(1)), (250, key(3)), (300, key(2)),
    ]  # fmt: skip
    assert due.soonest_ns == NEVER


def test_the_attempt_that_is_due_first_is_at_hand() -> None:
    due = Due()
    due.plan_end(100, key(1))
    due.plan_end(200, key(2))
    assert due.first == key(1)
    due.plan(50, key(3))
    assert due.first == key(3)


def test_neither_a_heartbeat_nor_nothing_is_an_attempt() -> None:
    due = Due()
    assert due.first is None
    due.plan_end(60, key(1))
    due.plan(50, None)
    assert due.first is None


def test_whatever_comes_and_goes_the_soonest_is_at_hand_and_the_line_stays_short() -> None:
    rng, due, there, now = random.Random(5), Due(), list[tuple[int, AttemptKey | None]](), 0
    for number in range(3_000):
        now += rng.randrange(3)
        if rng.random() < 0.7:
            due.plan_end(now + 200, key(number))
            there.append((now + 200, key(number)))
        else:
            due.plan(now + rng.randrange(1, 900, 2), key(number))
            there = due.planned()
        while due.soonest_ns <= now:
            at_ns = min(one[0] for one in there)
            assert due.soonest_ns == at_ns
            there.remove((at_ns, due.pop()))
    assert sorted(one[0] for one in there) == [at_ns for at_ns, _ in due.planned()]
    assert len(due._ends) < 2 * len(due.planned()) + 66
