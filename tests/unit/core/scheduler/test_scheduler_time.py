"""Heartbeats, the frozen time while the bus is down, and what is looked after once a beat."""

from __future__ import annotations

from collections.abc import Callable

from benches import SchedulerBench
from builders import cluster, offer

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.inputs import BusDown, BusUp
from anyserve.core.messages import ReplicaState
from anyserve.core.order import MS

BEAT_MS, LOST_MS = 1_000, 5_000


def test_the_timer_is_set_anew_at_every_beat() -> None:
    bench = SchedulerBench(fresh=True)
    assert bench.started.of(fx.SetTimer) == [fx.SetTimer(BEAT_MS * MS)]

    assert bench.wake(BEAT_MS).of(fx.SetTimer) == [fx.SetTimer(2 * BEAT_MS * MS)]


def test_a_silent_replica_is_lost() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    assign = bench.assigned(1)
    assert bench.wake(LOST_MS).sent(msg.AttemptLost) == []

    effects = bench.wake(1)

    assert effects.one(msg.AttemptLost).attempt == assign.attempt
    event = effects.event(ev.ReplicaChanged)
    assert (event.state, event.detail) == ("lost", "no heartbeat for 5000 ms")
    assert bench.wake(1).emitted(ev.ReplicaChanged) == [], "once"


def test_a_stopped_replica_may_be_silent() -> None:
    bench = SchedulerBench()
    bench.peer("r1").register(state=ReplicaState.STOPPED)

    assert bench.wake(10 * LOST_MS).emitted(ev.ReplicaChanged) == []


def test_whatever_a_replica_says_proves_it_alive() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=8)
    assign = bench.assigned(1)
    entry = msg.Entry(request=bench.request(2))
    signs: list[Callable[[], object]] = [
        peer.credit,
        lambda: peer.started(assign),
        lambda: peer.admitted(entry),
        peer.holding,
        lambda: peer.ended(assign),
        peer.register,
        lambda: peer.credit(epoch=0),
        lambda: peer.refuse(msg.Entry(request=bench.request(3), attempt=7)),
    ]

    for sign in signs:
        bench.later(LOST_MS)
        sign()
        assert bench.wake(1).emitted(ev.ReplicaChanged) == []
    assert bench.wake(LOST_MS).event(ev.ReplicaChanged).state == "lost"


def test_a_lost_replica_that_registers_again_serves_again() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    bench.wake(LOST_MS + 1)
    bench.submit(1)

    effects = peer.register(connection=2)

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r1")]
    event = effects.event(ev.ReplicaChanged)
    assert (event.replica, event.state, event.detail) == ("r1", "ready", "connected again")


def test_a_registration_of_a_replica_that_was_not_lost_is_no_news_to_observers() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")

    assert peer.register(connection=2).emitted(ev.ReplicaChanged) == []


def test_a_replica_that_was_only_silent_serves_again_when_it_is_heard() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    bench.wake(LOST_MS + 1)
    bench.submit(1)

    effects = peer.credit()

    event = effects.event(ev.ReplicaChanged)
    assert (event.state, event.detail) == ("ready", "heard again")
    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r1")]


def test_a_replica_whose_will_was_published_comes_back_by_registering_only() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    peer.gone()
    bench.submit(1)

    assert peer.credit().sent(msg.Assign) == []
    assert len(peer.register(connection=2).sent(msg.Assign)) == 1


def test_attempts_that_others_have_taken_over_are_stopped_when_it_is_heard() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=3)
    moved, settled = bench.assigned(1), bench.assigned(2)
    bench.wake(LOST_MS + 1)
    bench.tell(msg.Submit(request=moved.request, epoch=1, submission=2, last_attempt=moved.attempt))
    bench.settle(2)

    stops = peer.credit().sent(msg.CancelAttempt)

    assert {(stop.id, stop.attempt) for stop in stops} >= {
        ("p/1/1", moved.attempt),
        ("p/1/2", settled.attempt),
    }


def test_an_attempt_whose_origin_goes_on_after_it_was_heard_is_stopped_then() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=3)
    assign = bench.assigned(1)
    peer.started(assign)
    bench.wake(LOST_MS + 1)
    peer.see()
    assert peer.credit().sent(msg.CancelAttempt) == []

    bench.tell(
        msg.Submit(request=assign.request, epoch=1, submission=2, last_attempt=assign.attempt)
    )

    stop = peer.credit().one(msg.CancelAttempt)
    assert (stop.id, stop.attempt) == ("p/1/1", assign.attempt)
    assert peer.credit().sent(msg.CancelAttempt) == []


def test_without_its_bus_no_replica_looks_lost() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    bench.tell(BusDown())

    assert bench.wake(10 * LOST_MS).emitted(ev.ReplicaChanged) == []
    assert len(bench.wake(1).of(fx.SetTimer)) == 1, "it keeps its timer"


def test_after_a_reconnect_replicas_have_a_beat_and_the_grace_to_be_heard() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    bench.peer("r2").credit()
    bench.tell(BusDown())
    bench.later(10 * LOST_MS)

    up = bench.tell(BusUp(connection=2))

    assert up.one(msg.SchedulerState).epoch == 1, "a broker may have lost what was retained"
    assert bench.wake(BEAT_MS + LOST_MS - 1).emitted(ev.ReplicaChanged) == []
    lost = bench.wake(1).emitted(ev.ReplicaChanged)
    assert [event.replica for event in lost] == ["r1", "r2"]


def test_deadlines_wait_too_while_the_bus_is_down() -> None:
    bench = SchedulerBench()
    bench.peer("r1", credit=False)
    bench.submit(1, deadline=msg.Deadline("", bench.now + MS, 1))
    bench.tell(BusDown())

    assert bench.wake(100).sent(msg.Rejected) == []


def test_the_load_names_queues_that_have_somebody() -> None:
    bench = SchedulerBench(cluster(upgrades={}))
    peer = bench.peer("r1", offer("decode"), offer("decode.heavy"))
    bench.assigned(1)
    bench.submit(2)
    bench.submit(3, "decode.heavy")
    bench.tell(msg.Cancel(id="p/1/3"))

    load = bench.wake().event(ev.SchedulerLoad)

    assert (load.queues, load.bound) == ({"decode": 1}, 1)
    peer.freed()
    assert bench.wake().event(ev.SchedulerLoad).queues == {}


def test_replicas_with_an_entry_queue_are_asked_to_leave_a_slot() -> None:
    bench = SchedulerBench()
    busy = bench.peer("r1")
    bench.peer("r2", credit=False)
    bench.peer("r3", offer("embedding"), credit=False).credit(waiting=5)
    bench.assigned(1)
    busy.see()
    busy.credit(waiting=2)
    bench.submit(2)

    effects = bench.wake(BEAT_MS)

    assert effects.receivers(msg.Yield) == [(fx.Inbox.REPLICA, "r1")]
    assert effects.one(msg.Yield).epoch == 1


def test_nobody_is_asked_while_nothing_waits() -> None:
    bench = SchedulerBench()
    bench.peer("r1").credit(waiting=2)

    assert bench.wake(BEAT_MS).sent(msg.Yield) == []
