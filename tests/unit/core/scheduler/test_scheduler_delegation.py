"""Delegation: who may, where to, how often, and the entry promise."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from benches import Peer, SchedulerBench
from builders import cluster, deadline, offer, replica_spec

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.messages import Code, DelegateReason, ReplicaState


def entered(bench: SchedulerBench, number: int = 1, capability: str = "decode") -> msg.Entry:
    """A request that its origin gave to a replica; the scheduler hears of it by the hand-back."""
    return msg.Entry(request=bench.request(number, capability))


def full(bench: SchedulerBench, name: str, capability: str, concurrency: int = 1) -> Peer:
    """A replica without credit."""
    return bench.peer(name, offer(capability), concurrency=concurrency, credit=False)


def test_a_delegated_request_goes_to_the_next_rung_and_is_counted() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"))

    effects = s1.delegate(entered(bench), DelegateReason.TOO_LONG)

    assign = effects.one(msg.Assign)
    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "h1")]
    assert (assign.request.capability, assign.request.asked) == ("decode.heavy", "decode")
    assert (assign.delegations, assign.submission) == (1, 1)
    delegated = effects.event(ev.RequestDelegated)
    assert (delegated.from_capability, delegated.to_capability) == ("decode", "decode.heavy")
    assert (delegated.replica, delegated.reason, delegated.count) == ("s1", "too_long", 1)


def test_the_journal_has_the_delegation_before_anything_is_sent() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"))

    effects = s1.delegate(entered(bench), DelegateReason.TOO_LONG)

    assert isinstance(effects[0], fx.Persist)
    (record,) = effects.persisted
    assert (record.kind, record.id, record.delegations) == ("counters", "p/1/1", 1)
    assert record.capability == "decode.heavy"


def test_the_origin_of_a_bound_delegation_learns_its_new_rung() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"))

    accepted = s1.delegate(entered(bench), DelegateReason.TOO_LONG).one(msg.Accepted)

    assert (accepted.id, accepted.capability) == ("p/1/1", "decode.heavy")


def test_not_registered_stays_on_its_rung_where_another_replica_offers_it() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("embedding"))
    bench.peer("s2", offer("decode"))
    bench.peer("h1", offer("decode.heavy"))

    effects = s1.delegate(entered(bench))

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "s2")]
    assert effects.event(ev.RequestDelegated).to_capability == "decode"


def test_it_waits_on_its_own_rung_rather_than_climb_to_a_free_one() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("embedding"))
    full(bench, "s2", "decode")
    bench.peer("h1", offer("decode.heavy"))

    effects = s1.delegate(entered(bench))

    assert effects.sent(msg.Assign) == []
    assert bench.scheduler.depth("decode") == 1


def test_skipping_rungs_that_nobody_offers_is_one_delegation() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("huge", offer("decode.huge"))

    effects = s1.delegate(entered(bench), DelegateReason.TOO_LONG)

    assert effects.one(msg.Assign).delegations == 1
    assert effects.event(ev.RequestDelegated).to_capability == "decode.huge"


def test_too_long_stays_where_a_larger_limit_of_the_same_rung_admits_it() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("s2", offer("decode", max_tokens=7))
    bench.peer("h1", offer("decode.heavy"))

    effects = s1.delegate(entered(bench), DelegateReason.TOO_LONG)

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "s2")]


def test_rungs_whose_limits_do_not_admit_it_are_skipped() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=5))
    bench.peer("h1", offer("decode.heavy", max_tokens=6))
    bench.peer("huge", offer("decode.huge", max_tokens=7))

    effects = s1.delegate(entered(bench), DelegateReason.TOO_LONG)

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "huge")]


def test_attributes_stay_as_they_are_on_every_rung() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6, model="a"))
    bench.peer("h1", offer("decode.heavy", model="b"))
    bench.peer("huge", offer("decode.huge", model="a"))
    given = msg.Entry(request=bench.request(1, attributes={"model": "a"}))

    effects = s1.delegate(given, DelegateReason.TOO_LONG)

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "huge")]
    assert effects.one(msg.Assign).request.attributes == {"model": "a"}


def test_the_replica_that_delegated_never_gets_it_again() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode"), offer("decode.heavy"), concurrency=4)
    full(bench, "h1", "decode.heavy")

    effects = s1.delegate(entered(bench), DelegateReason.OVERLOAD, "decode.heavy")

    assert effects.sent(msg.Assign) == []
    assert s1.credit().sent(msg.Assign) == []
    assert bench.state_of(1) == "queued"


def test_overload_climbs_though_others_offer_the_rung_it_is_on() -> None:
    bench = SchedulerBench(cluster(overload=True))
    s1 = full(bench, "s1", "decode")
    bench.peer("s2", offer("decode"))
    bench.peer("h1", offer("decode.heavy"))

    effects = s1.delegate(entered(bench), DelegateReason.OVERLOAD, "decode.heavy")

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "h1")]


def test_overload_with_nothing_above_is_a_full_queue() -> None:
    bench = SchedulerBench(cluster(overload=True))
    s1 = full(bench, "s1", "decode")

    rejected = s1.delegate(entered(bench), DelegateReason.OVERLOAD, "decode.heavy").one(
        msg.Rejected
    )

    assert rejected.code is Code.QUEUE_FULL
    assert rejected.retry_after_ms == 1_000


@pytest.mark.parametrize(("reserve", "taken"), [(0.0, 2), (0.5, 1), (1.0, 1)])
def test_the_reserve_keeps_slots_from_overload_traffic(reserve: float, taken: int) -> None:
    """All but one at most: an idle replica takes whoever waits."""
    bench = SchedulerBench(cluster(overload=True, capability={"reserve": reserve}))
    s1 = full(bench, "s1", "decode")
    bench.peer("h1", offer("decode.heavy"), concurrency=2)

    assigned = [
        len(
            s1.delegate(entered(bench, number), DelegateReason.OVERLOAD, "decode.heavy").sent(
                msg.Assign
            )
        )
        for number in (1, 2)
    ]

    assert sum(assigned) == taken


def test_the_reserve_does_not_bind_hard_mismatches_or_direct_requests() -> None:
    bench = SchedulerBench(cluster(overload=True, capability={"reserve": 1.0}))
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"), concurrency=2)

    assert len(s1.delegate(entered(bench), DelegateReason.TOO_LONG).sent(msg.Assign)) == 1
    assert len(bench.submit(2, "decode.heavy").sent(msg.Assign)) == 1


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_no_more_delegations_than_the_limit(limit: int) -> None:
    rungs = ["a", "b", "c", "d"]
    ladder = dict(itertools.pairwise(rungs))
    bench = SchedulerBench(cluster(names=rungs, upgrades=ladder, limit=limit))
    peers = {rung: bench.peer(f"r-{rung}", offer(rung)) for rung in rungs}
    given: msg.Entry | msg.Assign = entered(bench, 1, "a")
    counts: list[int] = []
    rejected: list[msg.Rejected] = []

    for rung in rungs[: limit + 1]:
        effects = peers[rung].delegate(given, DelegateReason.TOO_LONG, ladder[rung])
        counts += [event.count for event in effects.emitted(ev.RequestDelegated)]
        rejected += effects.sent(msg.Rejected)
        given = next(iter(effects.sent(msg.Assign)), given)

    assert counts == list(range(1, limit + 1))
    assert [one.code for one in rejected] == [Code.DELEGATION_EXHAUSTED]
    assert bench.state_of(1) == "ended"


def test_a_delegation_that_is_said_twice_counts_once() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"), concurrency=2)
    back = s1.delegation(entered(bench), DelegateReason.TOO_LONG)
    bench.tell(back)

    again = bench.tell(back)

    assert len(again) == 0
    assert bench.scheduler.tickets["p/1/1"].delegations == 1


def test_a_delegation_that_is_said_again_after_the_next_attempt_ended_points_to_that() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    h1 = bench.peer("h1", offer("decode.heavy"), concurrency=2)
    back = s1.delegation(entered(bench), DelegateReason.TOO_LONG)
    assign = bench.tell(back).one(msg.Assign)
    h1.ended(assign)

    effects = bench.tell(back)

    alive = effects.one(msg.KeepAlive)
    assert (alive.replica, alive.held) == ("h1", [("p/1/1", assign.attempt)])
    assert len(effects) == 1
    bench.settle(1)
    assert len(bench.tell(back)) == 0


def test_nobody_admits_it_on_any_rung() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy", max_tokens=6))

    rejected = s1.delegate(entered(bench), DelegateReason.TOO_LONG).one(msg.Rejected)

    assert rejected.code is Code.TOO_LONG


def test_a_delegation_to_what_nobody_ever_offered_is_unknown() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1")

    rejected = s1.delegate(entered(bench, 1, "telepathy")).one(msg.Rejected)

    assert rejected.code is Code.UNKNOWN_CAPABILITY


def test_a_delegation_to_what_nobody_offers_now_is_no_replica() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("embedding"))

    rejected = s1.delegate(entered(bench)).one(msg.Rejected)

    assert (rejected.code, rejected.retry_after_ms) == (Code.NO_REPLICA, 1_000)


def test_a_delegation_waits_for_a_rung_whose_replica_may_return() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    h1 = bench.peer("h1", offer("decode.heavy"))
    h1.gone()

    effects = s1.delegate(entered(bench), DelegateReason.TOO_LONG)

    assert effects.event(ev.RequestQueued).capability == "decode.heavy"
    back = h1.register(incarnation=2, connection=1, revision=1)
    assert back.sent(msg.Assign) == []
    h1.sequence = 0
    assert len(h1.credit().sent(msg.Assign)) == 1


def test_a_rung_below_the_current_one_is_never_taken() -> None:
    bench = SchedulerBench(cluster(limit=2))
    s1 = bench.peer("s1", offer("decode"))
    h1 = bench.peer("h1", offer("decode.heavy"))
    given = bench.assigned(1, "decode.heavy")
    del s1

    effects = h1.delegate(given, DelegateReason.TOO_LONG, "decode")

    assert effects.sent(msg.Assign) == []
    assert effects.one(msg.Rejected).code in (Code.TOO_LONG, Code.NO_REPLICA)


def test_a_delegated_request_keeps_its_first_offered_time() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    h1 = full(bench, "h1", "decode.heavy")
    old = msg.Entry(request=bench.request(1, offered_ns=bench.now - 5_000_000))
    bench.submit(2, "decode.heavy")
    s1.delegate(old, DelegateReason.TOO_LONG)

    assert h1.credit().one(msg.Assign).request.id == "p/1/1"


def test_a_delegated_request_past_its_deadline_expires() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    bench.peer("h1", offer("decode.heavy"))
    given = msg.Entry(request=bench.request(1, deadline=deadline(60_000)))

    assert s1.delegate(given, DelegateReason.TOO_LONG).sent(msg.Assign) == []
    assert bench.wake().one(msg.Rejected).code is Code.DEADLINE_EXCEEDED


# --- the entry promise ---------------------------------------------------------------------------


def test_what_is_offered_only_above_enters_at_the_least_loaded_ready_replica() -> None:
    bench = SchedulerBench()
    busy = bench.peer("e1", offer("embedding"), concurrency=4)
    busy.credit(waiting=3)
    bench.peer("e2", offer("embedding"), concurrency=4)
    bench.peer("e0", offer("embedding"), state=ReplicaState.DRAINING)
    bench.peer("h1", offer("decode.heavy"), credit=False)

    effects = bench.submit(1)

    entry = effects.one(msg.Entry)
    assert effects.receivers(msg.Entry) == [(fx.Inbox.REPLICA, "e2")]
    assert (entry.request.capability, entry.attempt, entry.delegations) == ("decode", 1001, 0)
    assert (entry.epoch, entry.incarnation) == (1, 1)
    assert bench.state_of(1) == "entered"


def test_the_entry_replica_delegates_and_the_rung_above_serves() -> None:
    bench = SchedulerBench()
    e1 = bench.peer("e1", offer("embedding"))
    bench.peer("h1", offer("decode.heavy"), credit=False).credit(waiting=4)
    entry = bench.submit(1).one(msg.Entry)

    effects = e1.delegate(entry)

    assign = effects.one(msg.Assign)
    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "h1")]
    assert (assign.attempt, assign.delegations) == (1002, 1)


def test_an_entry_takes_no_credit() -> None:
    bench = SchedulerBench()
    bench.peer("e1", offer("embedding"))
    bench.peer("h1", offer("decode.heavy"), credit=False).credit(waiting=4)
    bench.submit(1).one(msg.Entry)

    assert bench.scheduler.replicas["e1"].credit == 1


def test_an_entry_without_answer_is_said_again_until_it_is_admitted() -> None:
    bench = SchedulerBench(cluster(lost_after_ms=60_000))
    e1 = bench.peer("e1", offer("embedding"))
    bench.peer("h1", offer("decode.heavy"), credit=False).credit(waiting=4)
    entry = bench.submit(1).one(msg.Entry)

    assert bench.wake(2_000).sent(msg.Entry) == []
    assert bench.wake(1).sent(msg.Entry) == [entry]
    assert bench.wake(1_999).sent(msg.Entry) == []

    e1.admitted(entry)
    assert bench.wake(10_000).sent(msg.Entry) == []


def test_a_request_for_a_rung_that_appears_later_is_sent_to_an_entry() -> None:
    bench = SchedulerBench(fresh=True)
    bench.submit(1)
    h1 = bench.peer("h1", offer("decode.heavy"), state=ReplicaState.STARTING)
    assert bench.state_of(1) == "queued"

    effects = h1.register(state=ReplicaState.READY)

    assert effects.receivers(msg.Entry) == [(fx.Inbox.REPLICA, "h1")]
    assert bench.state_of(1) == "entered"
    assert bench.scheduler.depth("decode") == 0


def test_with_nobody_above_either_it_is_refused() -> None:
    bench = SchedulerBench()
    bench.peer("e1", offer("embedding"))

    assert bench.submit(1).one(msg.Rejected).code is Code.NO_REPLICA


def test_it_waits_where_the_only_replica_above_is_starting() -> None:
    bench = SchedulerBench()
    h1 = bench.peer("h1", offer("decode.heavy"), state=ReplicaState.STARTING)

    assert bench.submit(1).sent(msg.Rejected) == []
    assert len(h1.register(state=ReplicaState.READY).sent(msg.Entry)) == 1


def test_a_young_life_keeps_what_comes_back_for_those_who_have_yet_to_register() -> None:
    # A restarted scheduler may hear of a hand-back before it hears of who could serve it.
    spec = msgspec.structs.replace(cluster(), replicas=(replica_spec("h1", offer("decode.heavy")),))
    journal = SchedulerBench(spec).journal
    bench = SchedulerBench(spec, journal=journal, fresh=True)
    s1 = bench.peer("s1", offer("decode", max_tokens=6))

    effects = s1.delegate(entered(bench), DelegateReason.TOO_LONG)

    assert effects.sent(msg.Rejected) == []
    assert effects.event(ev.RequestQueued).capability == "decode.heavy"
    bench.peer("h1", offer("decode.heavy"))
    assert bench.scheduler.tickets["p/1/1"].replica == "h1"
