"""What the scheduler does not serve, with which code, and what it waits for first."""

from __future__ import annotations

import pytest
from benches import SchedulerBench
from builders import cluster, offer

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.inputs import Pressure
from anyserve.core.messages import Code, ReplicaState


def test_a_rejection_says_why_to_the_origin_and_in_the_log() -> None:
    bench = SchedulerBench()

    effects = bench.submit(1, "telepathy")

    rejected = effects.one(msg.Rejected)
    assert (rejected.id, rejected.submission) == ("p/1/1", 1)
    assert rejected.code is Code.UNKNOWN_CAPABILITY
    assert "telepathy" in rejected.detail
    assert rejected.retry_after_ms is None
    assert effects.receivers(msg.Rejected) == [(fx.Inbox.ORIGIN, "p")]
    event = effects.event(ev.RequestRejected)
    assert (event.code, event.detail) == ("unknown_capability", rejected.detail)


def test_a_capability_that_was_ever_registered_is_known() -> None:
    bench = SchedulerBench()
    bench.peer("r1", offer("telepathy")).register(state=ReplicaState.STOPPED)

    assert bench.submit(1, "telepathy").one(msg.Rejected).code is Code.NO_REPLICA


def test_a_known_capability_without_replica_is_no_replica() -> None:
    bench = SchedulerBench()

    rejected = bench.submit(1).one(msg.Rejected)

    assert rejected.code is Code.NO_REPLICA
    assert rejected.retry_after_ms == 1_000


def test_while_the_scheduler_is_young_requests_wait_for_the_first_replica() -> None:
    bench = SchedulerBench(cluster(wait_for_replica_ms=500), fresh=True)

    assert bench.submit(1).sent(msg.Rejected) == []
    assert bench.wake(499).sent(msg.Rejected) == []
    rejected = bench.wake(1).one(msg.Rejected)

    assert rejected.code is Code.NO_REPLICA
    assert "500 ms" in rejected.detail


def test_a_young_scheduler_rejects_what_nobody_will_ever_offer() -> None:
    bench = SchedulerBench(fresh=True)

    assert bench.submit(1, "telepathy").one(msg.Rejected).code is Code.UNKNOWN_CAPABILITY


def test_a_young_scheduler_waits_only_for_replicas_that_could_serve() -> None:
    bench = SchedulerBench(fresh=True)

    assert bench.submit(1, "decode.huge").one(msg.Rejected).code is Code.NO_REPLICA
    assert bench.submit(2, "decode").sent(msg.Rejected) == []


def test_a_young_scheduler_after_a_restart_waits_for_anybody() -> None:
    bench = SchedulerBench(fresh=True, seen_epoch=1)

    assert bench.submit(1, "decode.huge").sent(msg.Rejected) == []


def test_a_request_waits_for_a_lost_replica_within_the_patience_and_no_longer() -> None:
    bench = SchedulerBench(cluster(wait_for_replica_ms=2_000))
    peer = bench.peer("r1")
    peer.gone()

    assert bench.submit(1).sent(msg.Rejected) == []
    bench.later(1_999)
    assert bench.wake().sent(msg.Rejected) == []
    assert bench.wake(1).one(msg.Rejected).code is Code.NO_REPLICA

    assert bench.submit(2).one(msg.Rejected).code is Code.NO_REPLICA


def test_the_patience_ends_when_the_replica_is_back() -> None:
    bench = SchedulerBench(cluster(wait_for_replica_ms=2_000, lost_after_ms=60_000))
    peer = bench.peer("r1")
    peer.gone()
    bench.submit(1)
    bench.later(1_500)
    peer.register(connection=2, state=ReplicaState.STARTING)

    assert bench.wake(1_500).sent(msg.Rejected) == []
    assert bench.state_of(1) == "queued"


def test_the_deadline_caps_the_patience() -> None:
    bench = SchedulerBench()
    bench.peer("r1").gone()
    bench.submit(1, deadline=msg.Deadline("", bench.now + 1_000_000, 1))

    assert bench.wake(5).one(msg.Rejected).code is Code.DEADLINE_EXCEEDED


def test_nobody_waits_for_a_lost_replica_that_could_not_have_served() -> None:
    bench = SchedulerBench()
    bench.peer("r1", offer(max_tokens=6)).gone()

    assert bench.submit(1).one(msg.Rejected).code is Code.NO_REPLICA


def test_too_long_for_every_replica_is_said_at_once() -> None:
    bench = SchedulerBench()
    bench.peer("r1", offer(max_tokens=6))

    rejected = bench.submit(1).one(msg.Rejected)

    assert rejected.code is Code.TOO_LONG
    assert "4 + 3 tokens" in rejected.detail


def test_it_is_not_too_long_while_a_lost_replica_that_admits_it_may_return() -> None:
    bench = SchedulerBench()
    bench.peer("r1", offer(max_tokens=6))
    big = bench.peer("r2", offer(max_tokens=100))
    big.gone()

    assert bench.submit(1).sent(msg.Rejected) == []
    assert big.register(connection=2).receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r2")]


def test_a_full_queue_rejects_new_requests_with_the_time_it_takes_to_drain() -> None:
    bench = SchedulerBench(cluster(capability={"queue_limit": 2}))
    peer = bench.peer("r1")
    first = bench.assigned(1)
    assert [len(bench.submit(number).sent(msg.Rejected)) for number in (2, 3, 4)] == [0, 0, 1]
    assert bench.submit(5).one(msg.Rejected).retry_after_ms == 1_000, "no rate is known yet"

    peer.ended(first)
    rejected = bench.submit(6).one(msg.Rejected)

    assert rejected.code is Code.QUEUE_FULL
    assert rejected.retry_after_ms is not None
    assert 20_000 < rejected.retry_after_ms < 40_000, "2 wait, and 1 came in a 10 s half-life"


def test_the_drain_time_shrinks_as_requests_complete_faster() -> None:
    bench = SchedulerBench(cluster(capability={"queue_limit": 1}))
    peer = bench.peer("r1", concurrency=50)
    given = [bench.assigned(number) for number in range(1, 51)]
    bench.submit(51)
    waits: list[int] = []
    for assign in given:
        peer.ended(assign)
        retry = bench.submit(100 + len(waits)).one(msg.Rejected).retry_after_ms
        assert retry is not None
        waits.append(retry)

    assert waits == sorted(waits, reverse=True)
    assert waits[-1] < waits[0] / 40


def test_each_capability_has_its_own_queue_limit() -> None:
    bench = SchedulerBench(cluster(capability={"queue_limit": 1}, upgrades={}))
    bench.peer("r1", offer("decode"), offer("decode.heavy"), credit=False)
    bench.submit(1)

    assert bench.submit(2).one(msg.Rejected).code is Code.QUEUE_FULL
    assert bench.submit(3, "decode.heavy").sent(msg.Rejected) == []


def test_a_capability_outside_the_scenario_has_a_limit_too() -> None:
    bench = SchedulerBench()
    bench.peer("r1", offer("telepathy"), credit=False)
    rejected = [
        len(bench.submit(number, "telepathy").sent(msg.Rejected)) for number in range(1, 1_026)
    ]

    assert sum(rejected) == 1
    assert rejected[-1] == 1


def test_what_comes_back_is_never_refused_for_fullness() -> None:
    bench = SchedulerBench(cluster(capability={"queue_limit": 1}))
    peer = bench.peer("r1")
    assign = bench.assigned(1)
    bench.submit(2)

    effects = peer.refuse(assign)

    assert effects.sent(msg.Rejected) == []
    assert bench.scheduler.depth("decode") == 2


def test_above_its_high_water_mark_the_scheduler_refuses_what_is_new() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    assign = bench.assigned(1)
    bench.tell(Pressure(high=True))

    assert bench.submit(2).one(msg.Rejected).code is Code.OVERLOADED
    assert peer.refuse(assign).sent(msg.Rejected) == [], "what comes back is taken"

    bench.tell(Pressure(high=False))
    assert bench.submit(3).sent(msg.Rejected) == []


def test_what_is_older_than_its_life_is_stale() -> None:
    bench = SchedulerBench()
    bench.peer("r1")

    late = bench.submit(1, offered_ns=bench.now - 2_000_000_000, lifetime_ms=1_999)
    just = bench.submit(2, offered_ns=bench.now - 2_000_000_000, lifetime_ms=2_000)

    assert late.one(msg.Rejected).code is Code.STALE
    assert just.sent(msg.Rejected) == []
    assert list(bench.scheduler.tickets) == ["p/1/2"]


def test_a_rejection_is_said_again_when_the_request_is_sent_again() -> None:
    bench = SchedulerBench(cluster(capability={"queue_limit": 0}))
    bench.peer("r1", credit=False)
    first = bench.submit(1).one(msg.Rejected)

    again = bench.submit(1)

    assert again.sent(msg.Rejected) == [first]
    assert again.emitted(ev.RequestRejected) == []


@pytest.mark.parametrize("copies", [1, 3])
def test_a_waiting_request_that_is_sent_again_is_accepted_again_and_queued_once(
    copies: int,
) -> None:
    bench = SchedulerBench()
    bench.peer("r1", credit=False)
    bench.submit(1)

    for _ in range(copies):
        again = bench.submit(1)
        assert len(again.sent(msg.Accepted)) == 1
        assert again.emitted(ev.RequestQueued) == []

    assert bench.scheduler.depth("decode") == 1
