"""Requests that enter at a replica: served, queued, delegated or rejected; and leaving a slot."""

from __future__ import annotations

import msgspec
import pytest
from benches import ReplicaBench
from builders import cluster, deadline, entry_of, offer, replica_spec

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.inputs import Drain
from anyserve.core.messages import AttemptStatus, Code, DelegateReason
from anyserve.core.spec import ClusterSpec


def overloaded(target_wait_ms: float | None = None, entry_queue: int = 4) -> ReplicaBench:
    """A replica of one slot in a cluster that delegates for overload; request 1 runs."""
    shared = cluster(overload=True, capability={"target_wait_ms": target_wait_ms})
    bench = ReplicaBench(replica_spec(concurrency=1, entry_queue=entry_queue), shared)
    bench.enter(1)
    return bench


def test_an_entry_with_a_free_slot_begins_and_is_announced() -> None:
    bench = ReplicaBench()

    effects = bench.enter(1)

    assert [work.attempt for work in effects.of(fx.StartWork)] == [msg.ENTRY_ATTEMPT]
    admitted = effects.one(msg.Admitted)
    assert (admitted.id, admitted.attempt, admitted.submission) == ("p/1/1", 1, 1)
    assert effects.event(ev.AttemptAdmitted).position == 0
    assert effects.event(ev.AttemptStarted).entered
    assert effects.sent(msg.Started) == [], "the scheduler did not assign it"


def test_without_a_free_slot_it_waits_in_the_entry_queue() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(1)

    effects = bench.enter(2)

    assert effects.of(fx.StartWork) == []
    assert effects.event(ev.AttemptAdmitted).position == 1
    assert bench.replica.waiting == 1


def test_the_entry_queue_is_served_best_first() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(1)
    bench.enter(2, priority=1)
    bench.enter(3)

    first = bench.finish(1, 1).of(fx.StartWork)
    second = bench.finish(3, 1).of(fx.StartWork)

    assert [work.request.id for work in (*first, *second)] == ["p/1/3", "p/1/2"]


def test_entries_and_held_assignments_compete_by_order() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.enter(1)
    bench.enter(2)
    bench.assign(3, offered_ns=bench.now - 1)

    first = bench.finish(1, 1).of(fx.StartWork)
    second = bench.finish(3).of(fx.StartWork)

    assert [work.request.id for work in (*first, *second)] == ["p/1/3", "p/1/2"]


def test_a_free_slot_is_not_taken_past_those_who_wait() -> None:
    bench = ReplicaBench(ready=False)
    bench.enter(1)
    assert bench.replica.waiting == 1, "its worker loads"

    assert bench.enter(2).of(fx.StartWork) == []


def test_a_full_entry_queue_rejects_with_the_time_it_takes() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, entry_queue=1))
    bench.enter(1)
    bench.enter(2)
    unknown = bench.enter(3).one(msg.Rejected)
    bench.later(400)
    bench.finish(1, 1)
    bench.enter(4)

    effects = bench.enter(5)

    assert (unknown.code, unknown.retry_after_ms) == (Code.QUEUE_FULL, 2_000)
    rejected = effects.one(msg.Rejected)
    assert (rejected.code, rejected.retry_after_ms) == (Code.QUEUE_FULL, 800)
    assert effects.receivers(msg.Rejected) == [(fx.Inbox.ORIGIN, "p")]
    assert effects.event(ev.RequestRejected).retry_after_ms == 800
    ended = effects.one(msg.Ended)
    assert (ended.status, ended.started) == (AttemptStatus.FAILED, False)


def test_what_is_not_registered_here_is_delegated_from_its_own_rung() -> None:
    bench = ReplicaBench()

    effects = bench.enter(1, "decode.heavy")

    back = effects.one(msg.Delegate)
    assert (back.reason, back.min_rung) == (DelegateReason.NOT_REGISTERED, "decode.heavy")
    assert (back.replica, back.epoch, back.request.id) == ("r1", 1, "p/1/1")
    assert effects.receivers(msg.Delegate) == [(fx.Inbox.SCHEDULER, "")]
    event = effects.event(ev.AttemptHandedBack)
    assert (event.kind, event.reason) == ("delegate", "not_registered")
    assert bench.replica.idle


def test_an_attribute_that_is_not_registered_here_is_delegated() -> None:
    bench = ReplicaBench(replica_spec("r1", offer("decode", model="a")))

    back = bench.enter(1, attributes={"model": "b"}).one(msg.Delegate)

    assert back.reason is DelegateReason.NOT_REGISTERED


def test_what_is_too_long_for_here_is_delegated_with_the_figures() -> None:
    bench = ReplicaBench(replica_spec("r1", offer("decode", max_tokens=6)))

    back = bench.enter(1).one(msg.Delegate)

    assert (back.reason, back.min_rung) == (DelegateReason.TOO_LONG, "decode")
    assert back.detail == "7 tokens > 6"


def test_one_of_several_offers_that_admits_it_is_enough() -> None:
    bench = ReplicaBench(
        replica_spec("r1", offer("decode", max_tokens=6), offer("decode", max_tokens=7))
    )

    assert len(bench.enter(1).of(fx.StartWork)) == 1


@pytest.mark.parametrize(("limit", "used"), [(0, 0), (1, 1), (2, 2)])
def test_with_its_delegations_used_up_it_is_rejected(limit: int, used: int) -> None:
    bench = ReplicaBench(shared=cluster(limit=limit))

    rejected = bench.enter(1, "decode.heavy", delegations=used).one(msg.Rejected)

    assert rejected.code is Code.DELEGATION_EXHAUSTED
    assert f"{used} of {limit}" in rejected.detail


def test_a_delegation_is_said_again_when_the_entry_is_repeated() -> None:
    bench = ReplicaBench()
    entry = entry_of(bench.request(1, "decode.heavy"))
    first = bench.tell(entry)

    again = bench.tell(entry)

    assert again.sent(msg.Delegate) == first.sent(msg.Delegate)
    assert again.emitted(ev.AttemptHandedBack) == []


def test_an_admission_is_said_again_when_the_entry_is_repeated() -> None:
    bench = ReplicaBench()
    entry = entry_of(bench.request(1))
    first = bench.tell(entry)

    again = bench.tell(entry)

    assert again.sent(msg.Admitted) == first.sent(msg.Admitted)
    assert again.of(fx.StartWork) == []


def test_the_end_is_said_again_when_the_entry_is_repeated() -> None:
    bench = ReplicaBench()
    entry = entry_of(bench.request(1))
    bench.tell(entry)
    first = bench.finish(1, 1)

    assert bench.tell(entry).sent(msg.Ended) == [msg.changed(first.one(msg.Ended), credit=None)]


def test_a_rejection_is_said_again_when_the_entry_is_repeated() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, entry_queue=0))
    bench.enter(1)
    entry = entry_of(bench.request(2))
    first = bench.tell(entry).one(msg.Rejected)

    again = bench.tell(entry)

    assert again.sent(msg.Rejected) == [first]
    assert again.sent(msg.Admitted) == []


def test_a_rejection_is_said_again_when_the_origin_asks_for_its_frames() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, entry_queue=0))
    bench.enter(1)
    first = bench.enter(2).one(msg.Rejected)

    again = bench.tell(msg.Repair(id="p/1/2", attempt=1, sequence=0))

    assert again.sent(msg.Rejected) == [first]


def test_an_entry_from_the_scheduler_for_another_life_or_epoch_is_dropped() -> None:
    bench = ReplicaBench(epoch=3, incarnation=2)
    entry = msgspec.structs.replace(entry_of(bench.request(1)), attempt=3001)

    assert len(bench.tell(msgspec.structs.replace(entry, incarnation=1, epoch=3))) == 0
    assert len(bench.tell(msgspec.structs.replace(entry, incarnation=2, epoch=2))) == 0
    assert len(bench.tell(msgspec.structs.replace(entry, incarnation=2, epoch=3)).of(fx.StartWork))


def test_a_draining_replica_returns_what_enters() -> None:
    bench = ReplicaBench()
    bench.tell(Drain())

    effects = bench.enter(1)

    assert effects.one(msg.Return).attempt == msg.ENTRY_ATTEMPT
    assert effects.sent(msg.Admitted) == []


def test_a_deadline_that_passed_in_the_entry_queue_ends_it() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(1)
    bench.enter(2, deadline=deadline(1_500))
    bench.enter(3)
    bench.later(500)

    effects = bench.finish(1, 1)

    assert effects.one(msg.Rejected).code is Code.DEADLINE_EXCEEDED
    assert [work.request.id for work in effects.of(fx.StartWork)] == ["p/1/3"]
    assert bench.replica.waiting == 0


# --- overload ------------------------------------------------------------------------------------


def test_overload_delegates_to_the_rung_above_when_the_entry_queue_is_full() -> None:
    bench = overloaded(entry_queue=1)
    bench.enter(2)

    back = bench.enter(3).one(msg.Delegate)

    assert (back.reason, back.min_rung) == (DelegateReason.OVERLOAD, "decode.heavy")
    assert back.detail == "entry queue 1 of 1"


def test_overload_delegates_when_the_predicted_wait_is_over_the_target() -> None:
    bench = overloaded(target_wait_ms=150.0)
    bench.later(100)
    bench.finish(1, 1)
    bench.enter(2)
    assert bench.enter(3).sent(msg.Delegate) == [], "one ahead: 100 ms"

    back = bench.enter(4).one(msg.Delegate)

    assert back.detail == "predicted wait 200 ms > 150 ms"


def test_without_a_measured_service_time_nothing_is_predicted() -> None:
    bench = overloaded(target_wait_ms=0.001)

    assert bench.enter(2).sent(msg.Delegate) == []


def test_without_a_target_only_a_full_queue_is_overload() -> None:
    bench = overloaded()
    bench.later(60_000)
    bench.finish(1, 1)
    bench.enter(2)

    assert bench.enter(3).sent(msg.Delegate) == []


@pytest.mark.parametrize(
    ("shared", "delegations"),
    [(cluster(), 0), (cluster(overload=True, upgrades={}), 0), (cluster(overload=True), 1)],
    ids=["not allowed", "nothing above", "none left"],
)
def test_else_a_full_queue_rejects(shared: ClusterSpec, delegations: int) -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, entry_queue=0), shared)
    bench.enter(1)

    effects = bench.enter(2, delegations=delegations)

    assert effects.sent(msg.Delegate) == []
    assert effects.one(msg.Rejected).code is Code.QUEUE_FULL


def test_overload_with_nothing_above_at_the_top_of_the_ladder_waits_or_rejects() -> None:
    shared = cluster(overload=True, capability={"target_wait_ms": 0.001})
    bench = ReplicaBench(replica_spec("r1", offer("decode.huge"), concurrency=1), shared)
    bench.enter(1, "decode.huge")
    bench.later(50)
    bench.finish(1, 1)
    bench.enter(2, "decode.huge")

    effects = bench.enter(3, "decode.huge")

    assert effects.sent(msg.Delegate) == []
    assert effects.event(ev.AttemptAdmitted).position == 1


def test_a_free_slot_is_never_overload() -> None:
    shared = cluster(overload=True, capability={"target_wait_ms": 0.0})
    bench = ReplicaBench(replica_spec(concurrency=1), shared)
    bench.enter(1)
    bench.later(50)
    bench.finish(1, 1)

    assert len(bench.enter(2).of(fx.StartWork)) == 1


# --- leaving a slot to the scheduler's queue -----------------------------------------------------


def test_asked_to_yield_it_leaves_one_freed_slot() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    for number in (1, 2, 3):
        bench.enter(number)
    bench.tell(msg.Yield(epoch=1))

    effects = bench.finish(1, 1)

    assert effects.of(fx.StartWork) == []
    credit = effects.credit
    assert credit.granted_total - credit.taken_total - credit.assigned_seen == 1
    assert [work.request.id for work in bench.assign(9).of(fx.StartWork)] == ["p/1/9"]
    assert [work.request.id for work in bench.finish(9).of(fx.StartWork)] == ["p/1/2"]


def test_a_slot_that_nobody_takes_is_used_at_the_next_beat() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(1)
    bench.enter(2)
    bench.tell(msg.Yield(epoch=1))
    bench.finish(1, 1)

    assert [work.request.id for work in bench.wake(1_000).of(fx.StartWork)] == ["p/1/2"]


def test_a_wish_of_an_earlier_life_counts_for_nothing() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(1)
    bench.enter(2)
    bench.tell(msg.Yield(epoch=0))

    assert len(bench.finish(1, 1).of(fx.StartWork)) == 1


def test_what_is_held_needs_no_yielding() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.enter(1)
    bench.enter(2, priority=5)
    bench.assign(3)
    bench.tell(msg.Yield(epoch=1))

    assert [work.request.id for work in bench.finish(1, 1).of(fx.StartWork)] == ["p/1/3"]
