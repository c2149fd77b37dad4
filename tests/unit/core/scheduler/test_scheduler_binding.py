"""Who gets a slot, and who waits for one."""

from __future__ import annotations

import msgspec
from benches import SchedulerBench
from builders import LADDER, cluster, deadline, offer

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.messages import ReplicaState


def ids(assignments: list[msg.Assign]) -> list[str]:
    return [assign.request.id for assign in assignments]


def test_a_request_goes_to_a_replica_with_credit_at_once() -> None:
    bench = SchedulerBench()
    bench.peer("r1")

    effects = bench.submit(1)

    assign = effects.one(msg.Assign)
    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r1")]
    assert (assign.request.id, assign.submission, assign.delegations) == ("p/1/1", 1, 0)
    assert (assign.epoch, assign.incarnation, assign.ordinal) == (1, 1, 1)
    assert assign.attempt == 1001
    assert effects.sent(msg.Accepted) == []
    assert bench.state_of(1) == "assigned"


def test_without_credit_it_waits_and_its_origin_is_told() -> None:
    bench = SchedulerBench()
    bench.peer("r1", credit=False)

    effects = bench.submit(1)

    assert effects.sent(msg.Assign) == []
    accepted = effects.one(msg.Accepted)
    assert (accepted.id, accepted.capability, accepted.epoch) == ("p/1/1", "decode", 1)
    assert effects.receivers(msg.Accepted) == [(fx.Inbox.ORIGIN, "p")]
    queued = effects.event(ev.RequestQueued)
    assert (queued.depth, queued.received_ns, queued.submission) == (1, bench.now, 1)
    assert bench.scheduler.depth("decode") == 1


def test_the_replica_is_chosen_when_a_slot_frees_not_before() -> None:
    bench = SchedulerBench()
    slow, quick = bench.peer("r1"), bench.peer("r2")
    bench.assigned(1)
    bench.assigned(2)
    bench.submit(3)
    assert bench.scheduler.depth("decode") == 1

    assert slow.credit().sent(msg.Assign) == []
    quick.see()
    effects = quick.freed()

    assert ids(effects.sent(msg.Assign)) == ["p/1/3"]
    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r2")]
    assert bench.scheduler.depth("decode") == 0


def test_credit_bounds_what_is_assigned() -> None:
    bench = SchedulerBench()
    bench.peer("r1", concurrency=2)

    assigned = [len(bench.submit(number).sent(msg.Assign)) for number in (1, 2, 3)]

    assert assigned == [1, 1, 0]
    assert bench.scheduler.replicas["r1"].credit == 0


def test_ordinals_count_the_assignments_to_one_replica() -> None:
    bench = SchedulerBench()
    bench.peer("r1", concurrency=2)
    bench.peer("r2", offer("embedding"), concurrency=2)

    ordinals = [
        bench.assigned(1).ordinal,
        bench.assigned(2, "embedding").ordinal,
        bench.assigned(3).ordinal,
    ]

    assert ordinals == [1, 1, 2]


def test_a_freed_slot_takes_the_first_offered_over_all_queues() -> None:
    bench = SchedulerBench(cluster(upgrades={}))
    peer = bench.peer("r1", offer("decode"), offer("decode.heavy"), credit=False)
    bench.submit(1, "decode")
    bench.submit(2, "decode.heavy", offered_ns=bench.now - 1)

    assert ids(peer.credit().sent(msg.Assign)) == ["p/1/2"]


def test_a_freed_slot_takes_the_first_offered_over_all_attribute_lanes() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", offer(model="a"), concurrency=3, credit=False)
    bench.submit(1)
    bench.submit(2, attributes={"model": "a"}, offered_ns=bench.now - 1)
    bench.peer("r2", offer(model="b"), credit=False)
    bench.submit(3, attributes={"model": "b"}, offered_ns=bench.now - 2)

    assert ids(peer.credit().sent(msg.Assign)) == ["p/1/2", "p/1/1"]
    assert bench.state_of(3) == "queued"


def test_lower_priority_numbers_go_first() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=3, credit=False)
    for number, priority in ((1, 2), (2, 0), (3, 1)):
        bench.submit(number, priority=priority)

    assert ids(peer.credit().sent(msg.Assign)) == ["p/1/2", "p/1/3", "p/1/1"]


def test_waiting_outweighs_a_step_of_priority_after_the_ageing_time() -> None:
    bench = SchedulerBench(cluster(ageing_ms=100))
    peer = bench.peer("r1", concurrency=3, credit=False)
    bench.submit(1, priority=1)
    bench.later(99)
    bench.submit(2, priority=0)
    bench.later(2)
    bench.submit(3, priority=0)

    assert ids(peer.credit().sent(msg.Assign)) == ["p/1/2", "p/1/1", "p/1/3"]


def test_by_deadline_the_first_due_goes_first() -> None:
    bench = SchedulerBench(cluster(order="deadline"))
    peer = bench.peer("r1", concurrency=3, credit=False)
    bench.submit(1)
    bench.submit(2, deadline=deadline(62_000))
    bench.submit(3, deadline=deadline(61_000))

    assert ids(peer.credit().sent(msg.Assign)) == ["p/1/3", "p/1/2", "p/1/1"]


def test_a_request_past_its_deadline_is_not_bound_but_expires() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", credit=False)
    bench.submit(1, deadline=deadline(60_100))
    bench.later(200)

    assert peer.credit().sent(msg.Assign) == []
    rejected = bench.wake().one(msg.Rejected)
    assert (rejected.code, rejected.retry_after_ms) == (msg.Code.DEADLINE_EXCEEDED, None)
    assert bench.scheduler.depth("decode") == 0


def test_a_request_that_arrives_past_its_deadline_expires_at_the_next_turn() -> None:
    bench = SchedulerBench()
    bench.peer("r1")

    assert bench.submit(1, deadline=deadline(1)).sent(msg.Assign) == []
    assert bench.wake().one(msg.Rejected).code is msg.Code.DEADLINE_EXCEEDED


def test_what_is_left_of_a_deadline_is_said_anew_with_the_assignment() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", credit=False)
    bench.submit(1, deadline=deadline(60_500, now_ms=60_000))
    bench.later(300)

    due = peer.credit().one(msg.Assign).request.deadline

    assert due == msg.Deadline(boot="", at_ns=60_500_000_000, left_ms=200)


def test_only_replicas_whose_attributes_and_limits_fit_are_candidates() -> None:
    bench = SchedulerBench()
    bench.peer("r1", offer(model="a"))
    bench.peer("r2", offer(max_tokens=6, model="b"))
    bench.peer("r3", offer(max_tokens=7, model="b"))

    effects = bench.submit(1, attributes={"model": "b"})

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r3")]


def test_replicas_that_start_drain_or_stopped_get_nothing() -> None:
    bench = SchedulerBench()
    for state in (ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.STOPPED):
        bench.peer(f"r-{state.value}", state=state)

    assert bench.submit(1).sent(msg.Assign) == []
    assert bench.state_of(1) == "queued"


def test_a_replica_that_becomes_ready_takes_what_waited() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", state=ReplicaState.STARTING)
    bench.submit(1)

    assert ids(peer.register(state=ReplicaState.READY).sent(msg.Assign)) == ["p/1/1"]


def test_a_request_for_a_higher_rung_never_takes_a_lower_one() -> None:
    bench = SchedulerBench(cluster(upgrades=LADDER))
    bench.peer("r1", offer("decode"))
    bench.peer("r2", offer("decode.heavy"), credit=False)

    assert bench.submit(1, "decode.heavy").sent(msg.Assign) == []
    assert bench.state_of(1) == "queued"


def test_the_payload_is_forgotten_once_the_attempt_has_started() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    assign = bench.assigned(1, body=msgspec.Raw(b'{"prompt_ids":[1]}'))
    assert bytes(assign.request.body) == b'{"prompt_ids":[1]}'

    peer.started(assign)

    assert bytes(bench.scheduler.tickets["p/1/1"].request.body) == b"{}"
    assert bench.state_of(1) == "started"


def test_an_attempt_that_ended_waits_for_its_origin_alone() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1")
    assign = bench.assigned(1)
    peer.started(assign)

    assert len(peer.ended(assign)) == 0
    assert bench.state_of(1) == "ended"

    bench.settle(1)
    assert bench.scheduler.tickets == {}


def test_a_long_queue_is_served_in_order_though_many_left_it_early() -> None:
    bench = SchedulerBench()
    peer = bench.peer("r1", concurrency=200, credit=False)
    for number in range(1, 201):
        bench.submit(number, offered_ns=number)
    for number in range(1, 201):
        if number % 8:
            bench.tell(msg.Cancel(id=f"p/1/{number}"))
    assert bench.scheduler.depth("decode") == 25

    served = ids(peer.credit().sent(msg.Assign))

    assert served == [f"p/1/{number}" for number in range(8, 201, 8)]
