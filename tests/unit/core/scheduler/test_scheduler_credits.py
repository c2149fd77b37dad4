"""Cumulative counters: what is lost, repeated or reordered on the way does no harm."""

from __future__ import annotations

from benches import SchedulerBench
from builders import cluster, offer

from anyserve.core import effects as fx
from anyserve.core import messages as msg
from anyserve.core.messages import ReplicaState

ACK_MS = 2_000


def credit(sequence: int, granted: int, *, taken: int = 0, seen: int = 0) -> msg.Credit:
    return msg.Credit(
        replica="r1",
        incarnation=1,
        epoch=1,
        sequence=sequence,
        granted_total=granted,
        taken_total=taken,
        assigned_seen=seen,
        ordinals_below=seen,
    )


def test_credit_is_granted_less_taken_less_assigned() -> None:
    bench = SchedulerBench()
    bench.peer("r1", concurrency=4, credit=False)
    bench.tell(credit(1, 4, taken=1))
    bench.assigned(1)

    view = bench.scheduler.replicas["r1"]
    assert (view.credit, view.in_use, view.fill) == (2, 2, 0.5)


def test_nothing_is_assigned_before_the_first_credit() -> None:
    bench = SchedulerBench()
    bench.peer("r1", concurrency=4, credit=False)

    assert bench.scheduler.replicas["r1"].credit == 0


def test_an_older_credit_that_arrives_late_changes_nothing() -> None:
    bench = SchedulerBench()
    bench.peer("r1", concurrency=4, credit=False)
    bench.tell(credit(5, 4, taken=4))

    bench.tell(credit(4, 4))
    bench.tell(credit(5, 9))

    assert bench.scheduler.replicas["r1"].credit == 0


def test_a_credit_of_another_life_or_of_nobody_changes_nothing() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=4, credit=False)
    first = peer.registration
    peer.register(incarnation=2, revision=1)

    assert len(bench.tell(credit(9, 4))) == 0
    assert bench.scheduler.replicas["r1"].credit == 0
    assert first.incarnation == 1


def test_a_new_life_of_a_replica_starts_without_credit_and_from_ordinal_one() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=2)
    bench.assigned(1)
    peer.register(incarnation=2, connection=1, revision=1)
    assert bench.submit(2).sent(msg.Assign) == []

    peer.sequence = peer.assigned = 0
    peer.granted = 2
    assign = peer.credit().one(msg.Assign)

    assert (assign.request.id, assign.incarnation, assign.ordinal) == ("p/1/2", 2, 1)


def test_the_entries_that_a_replica_took_use_its_credit() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=1)
    peer.taken = 1
    peer.credit()

    assert bench.submit(1).sent(msg.Assign) == []


def test_credit_below_zero_assigns_nothing_until_it_is_paid_back() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=1)
    bench.assigned(1)
    peer.taken = 1
    peer.see()
    peer.credit()
    assert bench.scheduler.replicas["r1"].credit == -1
    bench.submit(2)

    assert peer.freed().sent(msg.Assign) == []
    assert len(peer.freed().sent(msg.Assign)) == 1


def test_an_assignment_that_seems_lost_is_said_again_unchanged() -> None:
    bench = SchedulerBench(cluster(ack_ms=ACK_MS, lost_after_ms=60_000))
    peer = bench.peer("r1", concurrency=2)
    assign = bench.assigned(1)

    bench.later(ACK_MS)
    assert peer.credit().sent(msg.Assign) == []
    bench.later(1)
    assert peer.credit().sent(msg.Assign) == [assign]
    assert peer.credit().sent(msg.Assign) == [], "once per time to answer"


def test_an_assignment_that_arrived_is_not_said_again() -> None:
    bench = SchedulerBench(cluster(ack_ms=ACK_MS, lost_after_ms=60_000))
    peer = bench.peer("r1", concurrency=2)
    bench.assigned(1)
    peer.see()
    peer.credit()

    bench.later(2 * ACK_MS)
    assert peer.credit().sent(msg.Assign) == []


def test_a_start_acknowledges_the_assignment_before_any_credit_does() -> None:
    bench = SchedulerBench(cluster(ack_ms=ACK_MS, lost_after_ms=60_000))
    peer = bench.peer("r1", concurrency=2)
    peer.started(bench.assigned(1))
    bench.settle(1)

    bench.later(2 * ACK_MS)
    assert len(peer.credit()) == 0


def test_an_assignment_that_is_no_longer_wanted_is_cancelled_until_it_is_acknowledged() -> None:
    bench = SchedulerBench(cluster(ack_ms=ACK_MS, lost_after_ms=60_000))
    peer = bench.peer("r1", concurrency=2)
    assign = bench.assigned(1)
    bench.settle(1)

    bench.later(ACK_MS + 1)
    stop = peer.credit().one(msg.CancelAttempt)
    assert (stop.id, stop.attempt, stop.ordinal) == ("p/1/1", assign.attempt, assign.ordinal)

    peer.see()
    peer.credit()
    bench.later(ACK_MS + 1)
    assert peer.credit().sent(msg.CancelAttempt) == []


def test_an_operators_wish_is_passed_on_to_known_replicas_only() -> None:
    bench = SchedulerBench()
    bench.peer("r1")

    effects = bench.tell(msg.Operate(replica="r1", action="slow", factor=2.5))

    assert effects.one(msg.Control) == msg.Control(action="slow", factor=2.5)
    assert effects.receivers(msg.Control) == [(fx.Inbox.REPLICA, "r1")]
    assert len(bench.tell(msg.Operate(replica="r9", action="drain"))) == 0


def test_an_older_registration_changes_nothing() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    peer.register(connection=2, revision=1)

    assert len(peer.register(connection=1, revision=9, state=ReplicaState.STOPPED)) == 0
    assert bench.scheduler.replicas["r1"].state is ReplicaState.READY


def test_what_a_replica_no_longer_offers_is_no_longer_assigned_to_it() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", offer("decode"), offer("embedding"), concurrency=4)

    peer.register(offers=[offer("embedding")])

    assert bench.submit(1).sent(msg.Assign) == []
    assert len(bench.submit(2, "embedding").sent(msg.Assign)) == 1


def test_a_started_attempt_is_taken_from_the_replica_that_has_it_only() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    other = bench.peer("r2", credit=False)
    assign = bench.assigned(1)

    other.started(assign)
    other.ended(assign)

    assert bench.state_of(1) == "assigned"


def test_an_end_that_overtakes_the_start_ends_the_attempt() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    assign = bench.assigned(1)
    peer.ended(assign)

    assert len(peer.started(assign)) == 0
    assert bench.state_of(1) == "ended"


def test_the_credit_that_an_end_brings_goes_to_who_waits() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=1)
    first = bench.assigned(1)
    bench.submit(2)

    peer.granted += 1
    effects = peer.ended(first, credit=peer.counters())

    assert bench.state_of(1) == "ended"
    assert effects.one(msg.Assign).request.id == "p/1/2"


def test_the_credit_of_an_end_counts_though_the_end_is_not_news() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=1)
    first = bench.assigned(1)
    peer.ended(first)
    peer.granted += 1

    again = peer.ended(first, credit=peer.counters())
    late = peer.ended(first, credit=credit(1, 9))

    assert (len(again), len(late)) == (0, 0)
    assert bench.scheduler.replicas["r1"].credit == 1
