"""Cancelling, tombstones, settling, and origins that are gone."""

from __future__ import annotations

from benches import SchedulerBench
from builders import Effects, cluster, offer

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.messages import Code, DelegateReason


def cancel(bench: SchedulerBench, number: int, code: Code = Code.CLIENT_CANCELLED) -> Effects:
    return bench.tell(msg.Cancel(id=f"p/1/{number}", code=code))


def origin_gone(bench: SchedulerBench, incarnation: int = 1) -> Effects:
    return bench.tell(msg.Gone(source="p", incarnation=incarnation, connection=1))


def test_a_cancelled_request_leaves_the_queue() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", credit=False)
    bench.submit(1)

    cancel(bench, 1)

    assert bench.scheduler.depth("decode") == 0
    assert bench.state_of(1) == "ended"
    assert peer.credit().sent(msg.Assign) == []


def test_cancelling_what_is_assigned_stops_that_attempt() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    assign = bench.assigned(1)

    effects = cancel(bench, 1, Code.SHUTDOWN)

    assert effects.receivers(msg.CancelAttempt) == [(fx.Inbox.REPLICA, "r1")]
    stop = effects.one(msg.CancelAttempt)
    assert (stop.attempt, stop.ordinal, stop.code) == (
        assign.attempt,
        assign.ordinal,
        Code.SHUTDOWN,
    )
    assert len(cancel(bench, 1)) == 0, "said twice"


def test_a_cancel_that_overtakes_its_request_leaves_a_tombstone() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    cancel(bench, 1)

    rejected = bench.submit(1).one(msg.Rejected)

    assert rejected.code is Code.CLIENT_CANCELLED
    assert bench.scheduler.tickets == {}


def test_a_cancel_that_overtakes_a_hand_back_stops_it_too() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"))
    cancel(bench, 1)

    effects = s1.delegate(msg.Entry(request=bench.request(1)), DelegateReason.TOO_LONG)

    assert effects.one(msg.Rejected).code is Code.CLIENT_CANCELLED
    assert effects.sent(msg.Assign) == []


def test_tombstones_are_swept_after_two_lifetimes() -> None:
    spec = cluster()
    bench = SchedulerBench(spec)
    bench.peer("r1", concurrency=2)
    cancel(bench, 1)
    cancel(bench, 2)
    bench.wake(spec.request_lifetime_ms)
    assert bench.submit(1).one(msg.Rejected).code is Code.CLIENT_CANCELLED

    bench.wake(spec.request_lifetime_ms + 20_000)

    assert bench.submit(2).one(msg.Rejected).code is Code.NO_REPLICA, "its replica is lost by now"


def test_tombstones_are_bounded_the_oldest_goes_first() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    for number in range(1, 100_002):
        cancel(bench, number)

    assert len(bench.submit(1).sent(msg.Assign)) == 1
    assert bench.submit(2).one(msg.Rejected).code is Code.CLIENT_CANCELLED


def test_a_hand_back_after_a_cancel_is_answered_as_cancelled() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", concurrency=3)
    assign = bench.assigned(1)
    cancel(bench, 1)

    effects = r1.refuse(assign)

    assert effects.one(msg.Rejected).code is Code.CLIENT_CANCELLED
    assert len(effects) == 1


def test_a_submission_after_a_cancel_is_rejected_as_cancelled() -> None:
    bench = SchedulerBench()
    bench.peer("r1", credit=False)
    bench.submit(1)
    cancel(bench, 1)

    assert bench.submit(1).one(msg.Rejected).code is Code.CLIENT_CANCELLED


def test_settling_forgets_the_request_and_says_so_in_the_journal() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"))
    s1.delegate(msg.Entry(request=bench.request(1)), DelegateReason.TOO_LONG)

    effects = bench.settle(1)

    assert [(record.kind, record.id) for record in effects.persisted] == [("settled", "p/1/1")]
    assert bench.scheduler.tickets == {}
    assert len(bench.settle(1)) == 0


def test_settling_a_waiting_request_takes_it_out_of_the_queue() -> None:
    bench = SchedulerBench()
    bench.peer("r1", credit=False)
    bench.submit(1)

    assert bench.settle(1).persisted == [], "it had no counters"
    assert bench.scheduler.depth("decode") == 0


def test_nothing_about_a_settled_request_is_taken_up_again() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", concurrency=4)
    assign = bench.assigned(1)
    bench.settle(1)

    assert len(bench.submit(1)) == 0
    assert len(cancel(bench, 1)) == 0
    assert len(r1.refuse(assign)) == 0
    assert len(r1.admitted(msg.Entry(request=assign.request))) == 0
    assert bench.scheduler.tickets == {}


def test_the_watermark_of_an_origin_settles_all_below_it() -> None:
    bench = SchedulerBench()
    bench.peer("r1", concurrency=4)
    bench.settle(below=3)

    assert len(bench.submit(2)) == 0
    assert len(bench.submit(3).sent(msg.Assign)) == 1


def test_all_open_settles_tickets_that_are_not_named_one_by_one() -> None:
    bench = SchedulerBench()
    bench.peer("r1", credit=False)
    for number in (1, 2, 3):
        bench.submit(number)

    bench.settle(3, below=2, all_open=True)

    assert list(bench.scheduler.tickets) == ["p/1/2"]
    assert bench.scheduler.depth("decode") == 1


def test_a_lost_origin_has_its_requests_cancelled_after_a_grace() -> None:
    bench = SchedulerBench(cluster(lost_after_ms=5_000))
    r1 = bench.peer("r1")
    assign = bench.assigned(1)
    bench.submit(2)
    bench.submit(3, id="q/1/3")
    origin_gone(bench)
    bench.later(4_000)
    r1.credit()
    assert bench.wake(999).sent(msg.CancelAttempt) == []

    effects = bench.wake(1)

    stop = effects.one(msg.CancelAttempt)
    assert (stop.id, stop.attempt, stop.code) == ("p/1/1", assign.attempt, Code.ORIGIN_LOST)
    rejected = effects.emitted(ev.RequestRejected)
    assert [(one.id, one.code) for one in rejected] == [
        ("p/1/1", "origin_lost"),
        ("p/1/2", "origin_lost"),
    ]
    assert list(bench.scheduler.tickets) == ["q/1/3"]


def test_a_new_life_of_an_origin_has_what_its_earlier_one_left_stopped() -> None:
    """Else it would run on, since nobody is left to settle it."""
    bench = SchedulerBench(cluster())
    bench.peer("r1")
    assign = bench.assigned(1)
    bench.submit(2, id="q/1/2")

    effects = bench.tell(
        msg.Settled(origin="p", incarnation=2, ids=[], settled_below=1, all_open=True)
    )

    stop = effects.one(msg.CancelAttempt)
    assert (stop.id, stop.attempt, stop.code) == ("p/1/1", assign.attempt, Code.ORIGIN_LOST)
    assert list(bench.scheduler.tickets) == ["q/1/2"]


def test_an_origin_that_is_heard_of_again_keeps_its_requests() -> None:
    bench = SchedulerBench(cluster(lost_after_ms=5_000))
    bench.peer("r1", credit=False)
    bench.submit(1)
    bench.submit(2)
    origin_gone(bench)
    bench.submit(3)
    assert bench.wake(10_000).emitted(ev.RequestRejected) == []

    origin_gone(bench)
    bench.settle(1)
    assert bench.wake(10_000).emitted(ev.RequestRejected) == []
    assert list(bench.scheduler.tickets) == ["p/1/2", "p/1/3"]


def test_the_will_of_an_older_life_of_an_origin_spares_the_newer_one() -> None:
    bench = SchedulerBench(cluster(lost_after_ms=5_000))
    bench.peer("r1", credit=False)
    bench.submit(1, id="p/2/1")
    origin_gone(bench, incarnation=1)

    assert bench.wake(10_000).emitted(ev.RequestRejected) == []


def test_what_no_origin_settles_is_forgotten_after_two_lifetimes() -> None:
    bench = SchedulerBench(cluster(lost_after_ms=10**9))
    bench.peer("r1")
    bench.assigned(1, lifetime_ms=20_000)
    assert bench.wake(40_000).sent(msg.CancelAttempt) == []

    effects = bench.wake(10_001)

    assert effects.one(msg.CancelAttempt).code is Code.STALE
    assert effects.event(ev.RequestRejected).code == "stale"
    assert bench.scheduler.tickets == {}


def test_what_ended_unsettled_is_forgotten_in_silence() -> None:
    bench = SchedulerBench(cluster(lost_after_ms=10**9, refuse_limit=0))
    r1 = bench.peer("r1")
    r1.refuse(bench.assigned(1, lifetime_ms=20_000))

    effects = bench.wake(50_001)

    assert effects.emitted(ev.RequestRejected) == []
    assert [(record.kind, record.id) for record in effects.persisted] == [("settled", "p/1/1")]


def test_a_cancelled_request_does_not_come_back_by_a_recovery() -> None:
    """An operator cancelled it; its replica died before it could say so to the origin."""
    bench = SchedulerBench()
    bench.peer("r1")
    bench.assigned(1)
    bench.tell(msg.Cancel(id="p/1/1"))

    again = msg.Submit(request=bench.request(1), epoch=bench.scheduler.epoch, submission=2)
    rejected = bench.tell(again).one(msg.Rejected)

    assert (rejected.submission, rejected.code) == (2, Code.CLIENT_CANCELLED)


def test_a_stop_that_is_said_again_says_that_the_request_was_cancelled() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    bench.assigned(1)
    bench.tell(msg.Cancel(id="p/1/1", code=Code.SHUTDOWN))
    bench.later(2_100)

    stop = peer.credit().one(msg.CancelAttempt)

    assert stop.code is Code.SHUTDOWN
