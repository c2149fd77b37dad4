"""What the scheduler assigns: begun, held, refused or returned; and the replica's counters."""

from __future__ import annotations

import msgspec
import pytest
from benches import ReplicaBench
from builders import Effects, cluster, deadline, done, offer, replica_spec

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.inputs import BusDown, BusUp, Drain, Stopping, WorkerDied, WorkerReady
from anyserve.core.messages import AttemptStatus, Code, RefuseReason, ReplicaState


def outstanding(credit: msg.Credit) -> int:
    return credit.granted_total - credit.taken_total - credit.assigned_seen


def refused(effects: Effects) -> RefuseReason:
    return effects.one(msg.Refuse).reason


def test_an_assignment_with_a_free_slot_begins_at_once() -> None:
    bench = ReplicaBench()

    effects = bench.assign(1)

    (work,) = effects.of(fx.StartWork)
    assert (work.request.id, work.attempt, work.submission) == ("p/1/1", 1001, 1)
    started = effects.one(msg.Started)
    assert (started.id, started.attempt, started.replica) == ("p/1/1", 1001, "r1")
    event = effects.event(ev.AttemptStarted)
    assert (event.capability, event.entered, event.received_ns) == ("decode", False, bench.now)
    assert bench.replica.running == 1


def test_all_it_says_goes_to_scheduler_and_origins_only() -> None:
    bench = ReplicaBench()
    effects = [
        *bench.started,
        *bench.assign(1),
        *bench.finish(1),
        *bench.enter(2),
        *bench.wake(600),
    ]

    inboxes = {effect.inbox for effect in effects if isinstance(effect, fx.Send)}

    assert inboxes == {fx.Inbox.SCHEDULER, fx.Inbox.ORIGIN, fx.Inbox.REPLICA_REGISTRATION}


def test_an_assignment_said_twice_starts_once_and_is_answered_again() -> None:
    bench = ReplicaBench()
    assign = bench.assignment(1)
    first = bench.tell(assign)

    again = bench.tell(assign)

    assert again.of(fx.StartWork) == []
    assert again.sent(msg.Started) == first.sent(msg.Started)
    assert again.credits == [], "the counters are as they were"


def test_an_assignment_for_another_life_or_an_older_epoch_is_dropped() -> None:
    bench = ReplicaBench(epoch=2, incarnation=3)
    right = bench.assignment(1)

    assert len(bench.tell(msgspec.structs.replace(right, incarnation=2))) == 0
    assert len(bench.tell(msgspec.structs.replace(right, epoch=1))) == 0
    assert len(bench.tell(right).of(fx.StartWork)) == 1


def test_within_the_prefetch_it_holds_one_and_refuses_the_next() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.assign(1)

    second, third = bench.assign(2), bench.assign(3)

    assert second.of(fx.StartWork) == []
    assert second.sent(msg.Refuse) == []
    assert bench.replica.held == 1
    assert refused(third) is RefuseReason.STALE_CREDIT
    assert third.event(ev.AttemptHandedBack).kind == "refuse"
    assert outstanding(third.credit) == 0


def test_what_is_held_begins_when_a_slot_frees_best_first() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=2))
    bench.assign(1)
    bench.assign(2, priority=1)
    bench.assign(3)

    begun = [work.request.id for work in bench.finish(1).of(fx.StartWork)]

    assert begun == ["p/1/3"]
    assert bench.replica.held == 1


@pytest.mark.parametrize(
    ("capability", "fields"),
    [
        ("decode.heavy", {}),
        ("decode", {"attributes": {"model": "b"}}),
        ("decode", {"max_tokens": 100}),
    ],
)
def test_an_assignment_of_what_is_not_registered_is_refused(
    capability: str, fields: dict[str, object]
) -> None:
    bench = ReplicaBench(replica_spec("r1", offer("decode", max_tokens=10, model="a")))

    effects = bench.assign(1, capability, **fields)

    assert refused(effects) is RefuseReason.STALE_REGISTRATION
    assert effects.of(fx.StartWork) == []


def test_an_assignment_while_the_worker_loads_is_refused() -> None:
    bench = ReplicaBench(ready=False)

    assert refused(bench.assign(1)) is RefuseReason.STALE_REGISTRATION


def test_a_refusal_gives_the_credit_back_and_is_said_again_when_asked() -> None:
    bench = ReplicaBench(ready=False)
    assign = bench.assignment(1)
    first = bench.tell(assign)

    again = bench.tell(assign)

    assert outstanding(first.credit) == 2
    assert again.sent(msg.Refuse) == first.sent(msg.Refuse)
    assert again.emitted(ev.AttemptHandedBack) == []


def test_a_draining_replica_returns_what_it_is_assigned() -> None:
    bench = ReplicaBench()
    bench.tell(Drain())

    effects = bench.assign(1)

    assert effects.one(msg.Return).request.id == "p/1/1"
    assert effects.event(ev.AttemptHandedBack).reason == "draining"


def test_draining_returns_what_is_held_and_waits_and_finishes_what_runs() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.assign(1)
    bench.assign(2)
    bench.enter(3)

    effects = bench.tell(Drain())

    assert sorted(back.id for back in effects.sent(msg.Return)) == ["p/1/2", "p/1/3"]
    assert effects.one(msg.Registration).state is ReplicaState.DRAINING
    assert (bench.replica.held, bench.replica.waiting, bench.replica.running) == (0, 0, 1)
    assert bench.finish(1).one(msg.Ended).status is AttemptStatus.COMPLETED
    assert bench.replica.idle
    assert len(bench.tell(Drain())) == 0, "said twice"


def test_an_operator_drains_and_resumes() -> None:
    bench = ReplicaBench()
    drained = bench.tell(msg.Control(action="drain"))
    assert drained.one(msg.Registration).state is ReplicaState.DRAINING

    resumed = bench.tell(msg.Control(action="resume"))

    assert resumed.one(msg.Registration).state is ReplicaState.READY
    assert len(bench.assign(1).of(fx.StartWork)) == 1
    assert len(bench.tell(msg.Control(action="resume"))) == 0
    assert len(bench.tell(msg.Control(action="slow", factor=2.0))) == 0


def test_a_drain_while_the_worker_loads_holds_when_it_is_ready() -> None:
    bench = ReplicaBench(ready=False)
    assert bench.tell(Drain()).sent(msg.Registration) == []

    assert bench.tell(WorkerReady()).one(msg.Registration).state is ReplicaState.DRAINING


def test_a_resume_while_the_worker_loads_leads_to_ready() -> None:
    bench = ReplicaBench(ready=False)
    bench.tell(Drain())
    bench.tell(msg.Control(action="resume"))

    assert bench.tell(WorkerReady()).one(msg.Registration).state is ReplicaState.READY


# --- the counters --------------------------------------------------------------------------------


def test_the_first_credit_grants_the_window() -> None:
    bench = ReplicaBench(replica_spec(concurrency=3, prefetch=1), epoch=0)

    credit = bench.learn(1).credit

    assert (credit.granted_total, credit.taken_total, credit.assigned_seen) == (4, 0, 0)
    assert bench.replica.credit_outstanding == 4


def test_an_assignment_uses_a_credit_and_its_end_grants_one() -> None:
    bench = ReplicaBench()

    bench.assign(1)
    assert bench.replica.credit_outstanding == 1

    ended = bench.finish(1).credit

    assert (ended.assigned_seen, ended.ordinals_below) == (1, 1)
    assert (outstanding(ended), ended.granted_total) == (2, 3)


def test_an_end_brings_its_credit_along() -> None:
    bench = ReplicaBench()
    bench.assign(1)

    effects = bench.finish(1)

    assert [type(one) for one in effects.sent(msg.Message)] == [msg.Frame, msg.Ended]
    assert effects.one(msg.Ended).credit == effects.credit


def test_of_several_ends_the_last_one_brings_the_counters() -> None:
    bench = ReplicaBench(replica_spec(concurrency=2))
    bench.assign(1)
    bench.assign(2)

    effects = bench.step(done(1, 1001), done(2, 1001))

    first, last = effects.sent(msg.Ended)
    assert first.credit is None
    assert last.credit == effects.credit
    assert (effects.credit.granted_total, effects.credit.load.running) == (4, 0)


def test_an_assignment_is_acknowledged_by_its_start_and_with_the_next_heartbeat() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))

    first, second = bench.assign(1), bench.assign(2)

    assert (first.credits, second.credits) == ([], [])
    assert first.one(msg.Started).id == "p/1/1"
    beat = bench.wake(1_000).credit
    assert (beat.assigned_seen, beat.ordinals_below, outstanding(beat)) == (2, 2, 0)


def test_an_entry_that_begins_is_announced_by_granting_less() -> None:
    bench = ReplicaBench()

    began = bench.enter(1).credit

    assert (outstanding(began), began.taken_total, began.assigned_seen) == (1, 1, 0)
    assert outstanding(bench.finish(1, msg.ENTRY_ATTEMPT).credit) == 2


def test_an_entry_that_waits_takes_its_credit_when_it_begins() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.assign(1)
    assert bench.enter(2).credits == []

    ended = bench.finish(1).credit

    assert (ended.granted_total, ended.taken_total, outstanding(ended)) == (2, 1, 0)


def test_an_assignment_that_meets_an_entry_leaves_the_credit_below_zero_for_a_while() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.enter(1)

    effects = bench.assign(2)

    assert refused(effects) is RefuseReason.STALE_CREDIT
    assert outstanding(effects.credit) == 0
    assert bench.replica.credit_outstanding == 0


def test_ordinals_that_arrive_out_of_order_are_acknowledged_without_gap() -> None:
    bench = ReplicaBench(replica_spec(concurrency=3))
    first, second, third = (bench.assignment(number) for number in (1, 2, 3))

    below = []
    for assign in (third, first, second):
        bench.tell(assign)
        below.append(bench.wake(1_000).credit.ordinals_below)

    assert below == [0, 1, 3]


def test_a_new_scheduler_life_hears_all_that_is_held_and_then_the_counters() -> None:
    bench = ReplicaBench(replica_spec(concurrency=2))
    bench.assign(1)
    bench.enter(2)
    bench.enter(3)

    effects = bench.learn(2)

    holding = effects.one(msg.Holding)
    assert holding.epoch == 2
    assert [(one.id, one.attempt, one.started, one.entered) for one in holding.held] == [
        ("p/1/1", 1001, True, False),
        ("p/1/2", 1, True, True),
        ("p/1/3", 1, False, True),
    ]
    credit = effects.credit
    assert (credit.epoch, credit.assigned_seen, credit.ordinals_below) == (2, 1, 0)
    order = [type(send.message) for send in effects.of(fx.Send)]
    assert order.index(msg.Holding) < order.index(msg.Credit)
    assert effects.event(ev.EpochChanged).epoch == 2


def test_a_hand_back_of_an_entry_is_said_again_to_a_new_life() -> None:
    bench = ReplicaBench(epoch=1)
    bench.tell(Drain())
    bench.enter(1)
    bench.assign(2)

    effects = bench.learn(2)

    back = effects.one(msg.Return)
    assert (back.id, back.epoch) == ("p/1/1", 2)


def test_the_ordinals_of_a_new_life_count_from_one_again() -> None:
    bench = ReplicaBench()
    bench.assign(1)
    bench.finish(1)
    bench.learn(2)

    bench.assign(2, attempt=2001)
    credit = bench.wake(1_000).credit

    assert (credit.assigned_seen, credit.ordinals_below, outstanding(credit)) == (2, 1, 1)


@pytest.mark.parametrize("told", [msg.StaleEpoch(epoch=2), "assign"])
def test_every_way_to_hear_of_a_new_life_counts(told: object) -> None:
    bench = ReplicaBench()
    if told == "assign":
        bench.epoch = 2
        told = bench.assignment(1)

    effects = bench.tell(told)

    assert effects.one(msg.Holding).epoch == 2
    assert bench.tell(msg.StaleEpoch(epoch=2)).sent(msg.Holding) == [], "heard before"


# --- workers -------------------------------------------------------------------------------------


def test_it_registers_when_it_starts_and_when_its_worker_is_ready() -> None:
    bench = ReplicaBench(ready=False)
    begun = bench.started.one(msg.Registration)
    assert (begun.state, begun.offers) == (ReplicaState.STARTING, [offer()])

    effects = bench.tell(WorkerReady(engine="vllm"))

    ready = effects.one(msg.Registration)
    assert (ready.state, ready.engine, ready.connection) == (ReplicaState.READY, "vllm", 1)
    assert ready.revision > begun.revision
    event = effects.event(ev.ReplicaChanged)
    assert (event.state, event.offers, event.engine) == ("ready", {"decode": None}, "vllm")


def test_a_dead_worker_loses_what_ran_and_hands_back_what_was_held() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.assign(1)
    bench.assign(2)
    bench.enter(3)

    effects = bench.tell(WorkerDied(reason="signal 9"))

    lost = effects.one(msg.AttemptLost)
    assert (lost.id, lost.code, lost.started) == ("p/1/1", Code.WORKER_DIED, True)
    ended = effects.one(msg.Ended)
    assert (ended.status, ended.started) == (AttemptStatus.WORKER_DIED, True)
    assert effects.event(ev.AttemptEnded).message == "signal 9"
    assert effects.one(msg.Refuse).id == "p/1/2"
    registration = effects.one(msg.Registration)
    assert (registration.state, registration.restarting) == (ReplicaState.STARTING, True)
    assert (bench.replica.running, bench.replica.waiting) == (0, 1), "entries wait for the next"
    assert outstanding(effects.credits[-1]) == 2


def test_what_waited_begins_when_the_next_worker_is_ready() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.assign(1)
    bench.enter(2)
    bench.tell(WorkerDied(reason="x"))

    effects = bench.tell(WorkerReady())

    assert [work.request.id for work in effects.of(fx.StartWork)] == ["p/1/2"]
    assert effects.one(msg.Registration).restarting is False


def test_a_loss_is_said_again_when_the_assignment_is_repeated() -> None:
    bench = ReplicaBench()
    assign = bench.assignment(1)
    bench.tell(assign)
    first = bench.tell(WorkerDied(reason="x"))

    again = bench.tell(assign)

    assert again.sent(msg.AttemptLost) == first.sent(msg.AttemptLost)
    assert again.sent(msg.Ended) == [msg.changed(first.one(msg.Ended), credit=None)]


def test_a_worker_that_is_given_up_hands_back_everything() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.assign(1)
    bench.enter(2)

    effects = bench.tell(WorkerDied(reason="x", final=True))

    assert effects.one(msg.Refuse).id == "p/1/2"
    assert effects.one(msg.Registration).state is ReplicaState.STOPPED
    assert bench.replica.idle


def test_a_process_that_stops_does_the_same() -> None:
    bench = ReplicaBench()
    bench.assign(1)

    effects = bench.tell(Stopping())

    assert effects.one(msg.AttemptLost).id == "p/1/1"
    assert effects.one(msg.Registration).state is ReplicaState.STOPPED
    assert bench.replica.state is ReplicaState.STOPPED


def test_saturation_shows_and_passes() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1))
    bench.assign(1)
    assert bench.replica.state.value == "saturated"

    registered = bench.tell(BusUp(connection=2)).one(msg.Registration)
    assert (registered.state, registered.connection) == (ReplicaState.READY, 2)

    bench.finish(1)
    assert bench.replica.state.value == "ready"


def test_a_deadline_that_passed_while_it_was_held_ends_it_and_frees_its_credit() -> None:
    bench = ReplicaBench(replica_spec(concurrency=1, prefetch=1))
    bench.assign(1)
    bench.assign(2, deadline=deadline(1_500))
    bench.later(500)

    effects = bench.finish(1)

    assert effects.of(fx.StartWork) == []
    assert effects.one(msg.Rejected).code is Code.DEADLINE_EXCEEDED
    assert outstanding(effects.credit) == 2
    assert bench.replica.idle


def test_an_older_life_s_registration_is_overwritten() -> None:
    bench = ReplicaBench(incarnation=5)
    mine = bench.started.one(msg.Registration)

    assert len(bench.tell(mine)) == 0
    again = bench.tell(msgspec.structs.replace(mine, incarnation=4)).one(msg.Registration)
    assert (again.incarnation, again.revision > mine.revision) == (5, True)


def test_while_the_bus_is_down_nothing_is_decided() -> None:
    bench = ReplicaBench()
    bench.assign(1)

    assert len(bench.tell(BusDown())) == 0
    effects = bench.tell(BusUp(connection=2))

    assert effects.one(msg.Holding).held[0].id == "p/1/1"
    assert len(effects.credits) == 1


def test_before_any_scheduler_is_known_nothing_is_said_to_it() -> None:
    bench = ReplicaBench(epoch=0)

    effects = [*bench.tell(BusUp(connection=2)), *bench.wake(2_000)]

    kinds = {type(one.message) for one in effects if isinstance(one, fx.Send)}
    assert kinds == {msg.Registration}


def test_a_cluster_rule_does_not_change_an_engine_that_already_ended_an_attempt() -> None:
    bench = ReplicaBench(shared=cluster(limit=0))
    bench.assign(1)
    bench.finish(1)

    assert len(bench.step(done(1, 1001))) == 0, "a delta of an attempt that is over"


def lazy(effects: Effects) -> dict[str, bool]:
    """Whether each message to the scheduler may wait for company, by its kind."""
    return {
        type(effect.message).__name__: effect.lazy
        for effect in effects
        if isinstance(effect, fx.Send) and effect.inbox is fx.Inbox.SCHEDULER
    }


def test_only_what_the_scheduler_decides_nothing_by_waits_for_company() -> None:
    bench = ReplicaBench()

    assert lazy(bench.assign(1)) == {"Started": True}
    assert lazy(bench.finish(1)) == {"Ended": False}
    assert lazy(bench.enter(2)) == {"Admitted": False, "Credit": False}
    assert lazy(bench.learn(2)) == {"Holding": False, "Credit": False}
