"""When an origin looks after which request."""

from __future__ import annotations

from benches import OriginBench
from builders import deadline

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core.counts import Count, OfferedCount
from anyserve.core.effects import OutcomeKind
from anyserve.core.inputs import BusDown
from anyserve.core.order import MS, NEVER
from anyserve.core.origin.looks import Looks


def test_what_is_due_is_told_in_order_of_time_and_then_of_planning_each_once() -> None:
    looks = Looks()
    for at_ns, name in ((20, "b"), (10, "c"), (20, "a"), (20, "b"), (30, "d"), (10, "a")):
        looks.plan(at_ns, name)

    assert looks.take(5) == []
    assert looks.take(20) == ["c", "a", "b"]
    assert looks.take(40) == ["d"]
    assert looks.first_ns({"a", "b", "c", "d"}) is None


def test_a_time_at_which_nobody_is_pending_is_passed_over() -> None:
    looks = Looks()
    for at_ns, name in ((10, "a"), (20, "b"), (20, "c"), (30, "a")):
        looks.plan(at_ns, name)

    assert looks.first_ns({"b"}) == 20
    assert looks.take(20) == ["b"]
    assert looks.first_ns({"c"}) is None


def test_the_soonest_time_is_that_of_whatever_is_planned() -> None:
    looks = Looks()
    assert looks.soonest_ns == NEVER

    looks.plan(20, "a")
    looks.plan(10, "over")
    assert looks.soonest_ns == 10
    assert looks.first_ns({"a"}) == looks.soonest_ns == 20


def test_a_request_ends_at_its_deadline_though_nothing_is_heard_of_the_bus() -> None:
    bench = OriginBench()
    bench.offer(deadline=deadline(9_000))
    bench.tell(BusDown())

    bench.wake(2_000)
    bench.now = 9_000 * MS - 1
    assert bench.wake().of(fx.Finish) == []
    bench.now = 9_000 * MS
    (finish,) = bench.wake().of(fx.Finish)
    assert finish.outcome.kind is OutcomeKind.EXPIRED


def test_of_a_request_that_is_not_explained_only_what_is_counted_is_told() -> None:
    bench = OriginBench(explains=lambda request_id: request_id == "p/1/2")
    brief, full = bench.offer(), bench.offer()

    assert brief.of(ev.Event) == []
    assert [type(one) for one in brief.of(Count)] == [OfferedCount]
    assert full.of(Count) == []
    assert [type(one) for one in full.of(ev.Event)] == [ev.RequestOffered, ev.RequestSubmitted]
