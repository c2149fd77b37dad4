"""What a replica has to do when: against a plain list of times."""

from __future__ import annotations

import random

from anyserve.core.messages import Request
from anyserve.core.order import NEVER
from anyserve.core.replica.due import Due
from anyserve.core.replica.slot import Slot


def ended(number: int) -> Slot:
    request = Request(
        id=f"p/1/{number}", asked="decode", capability="decode", prompt_tokens=1, max_tokens=1,
        offered_ns=0, lifetime_ms=1,
    )  # fmt: skip
    return Slot(request, 1, 1, 0)


def test_nothing_is_due_where_nothing_is_planned() -> None:
    assert Due().soonest_ns == NEVER


def test_heartbeats_and_ends_come_in_order_of_time() -> None:
    due, one, two, three = Due(), ended(1), ended(2), ended(3)
    due.plan_end(200, one)
    due.plan(150, None)
    due.plan_end(300, two)
    due.plan(250, three)

    planned = [(150, None), (200, one), (250, three), (300, two)]
    assert due.planned() == planned
    assert [(due.soonest_ns, due.pop()) for _ in range(4)] == planned
    assert due.soonest_ns == NEVER


def test_the_next_ends_that_were_dropped_are_forgotten_and_what_is_behind_another_waits() -> None:
    due, one, two, three, four = Due(), ended(1), ended(2), ended(3), ended(4)
    due.plan(900, None)
    for at_ns, slot in ((100, one), (200, two), (300, three), (400, four)):
        due.plan_end(at_ns, slot)
    two.dropped = four.dropped = True
    due.forget()
    assert due.soonest_ns == 100

    one.dropped = True
    due.forget()
    assert due.soonest_ns == 300
    assert due.planned() == [(300, three), (400, four), (900, None)]

    three.dropped = True
    due.forget()
    assert due.planned() == [(900, None)]
    assert due.soonest_ns == 900
    due.forget()
    assert due.soonest_ns == 900


def test_whatever_comes_and_goes_the_soonest_is_at_hand() -> None:
    rng, due, there, now = random.Random(5), Due(), list[tuple[int, Slot | None]](), 0
    for number in range(3_000):
        now += rng.randrange(3)
        if rng.random() < 0.7:
            slot = ended(number)
            due.plan_end(now + 200, slot)
            there.append((now + 200, slot))
        else:
            due.plan(now + rng.randrange(1, 900, 2), ended(number))
            there = due.planned()
        while due.soonest_ns <= now:
            at_ns = min(one[0] for one in there)
            assert due.soonest_ns == at_ns
            there.remove((at_ns, due.pop()))
    assert sorted(one[0] for one in there) == [at_ns for at_ns, _ in due.planned()]
