"""Refuse, return and lost: three ways back that cost no delegation, each with its own bound."""

from __future__ import annotations

import pytest
from benches import SchedulerBench
from builders import Effects, cluster, offer

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.messages import AttemptStatus, Code, ReplicaState


def again(
    bench: SchedulerBench, number: int = 1, submission: int = 2, last_attempt: int = 0
) -> Effects:
    """The origin lost an attempt and submits the request again."""
    return bench.tell(
        msg.Submit(
            request=bench.request(number),
            epoch=bench.scheduler.epoch,
            submission=submission,
            last_attempt=last_attempt,
        )
    )


# --- refuse --------------------------------------------------------------------------------------


def test_a_refused_request_goes_to_another_replica_on_the_same_rung() -> None:
    bench = SchedulerBench()
    r1, _ = bench.peer("r1", concurrency=4), bench.peer("r2")
    bench.peer("h1", offer("decode.heavy"))
    assign = bench.assigned(1)

    effects = r1.refuse(assign)

    second = effects.one(msg.Assign)
    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r2")]
    assert (second.request.capability, second.delegations) == ("decode", 0)
    assert second.attempt == assign.attempt + 1
    event = effects.event(ev.RequestReentered)
    assert (event.kind, event.count, event.replica) == ("refuse", 1, "r1")
    assert effects.persisted[0].refusals == 1


def test_the_only_replica_may_be_tried_again() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", concurrency=4)

    effects = r1.refuse(bench.assigned(1))

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r1")]


def test_more_refusals_than_the_limit_end_the_request() -> None:
    bench = SchedulerBench(cluster(refuse_limit=2))
    r1 = bench.peer("r1", concurrency=8)
    assign = bench.assigned(1)
    for _ in range(2):
        assign = r1.refuse(assign).one(msg.Assign)

    rejected = r1.refuse(assign).one(msg.Rejected)

    assert rejected.code is Code.REFUSE_EXHAUSTED
    assert "r1" in rejected.detail
    assert bench.state_of(1) == "ended"


def test_a_refusal_said_twice_counts_once() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", concurrency=8)
    refusal = r1.refusal(bench.assigned(1))
    bench.tell(refusal)

    assert len(bench.tell(refusal)) == 0
    assert bench.scheduler.tickets["p/1/1"].refusals == 1


def test_who_refused_is_avoided_only_while_another_could_serve() -> None:
    bench = SchedulerBench()
    r1, r2 = bench.peer("r1", concurrency=4), bench.peer("r2", credit=False)
    effects = r1.refuse(bench.assigned(1))
    assert effects.sent(msg.Assign) == []

    lost = r2.gone()

    assert lost.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r1")]


def test_where_all_have_refused_all_may_be_tried_again() -> None:
    bench = SchedulerBench()
    peers = {name: bench.peer(name, concurrency=4) for name in ("r1", "r2")}
    first = bench.submit(1)
    (_, holder), assign = first.receivers(msg.Assign)[0], first.one(msg.Assign)

    second = peers[holder].refuse(assign)
    (_, other) = second.receivers(msg.Assign)[0]
    third = peers[other].refuse(second.one(msg.Assign))

    assert {holder, other} == {"r1", "r2"}
    assert len(third.sent(msg.Assign)) == 1
    assert bench.scheduler.tickets["p/1/1"].refused_by == set()


# --- return --------------------------------------------------------------------------------------


def test_a_returned_request_goes_on_without_costs() -> None:
    bench = SchedulerBench()
    r1, _ = bench.peer("r1", concurrency=4), bench.peer("r2")
    assign = bench.assigned(1)
    r1.register(state=ReplicaState.DRAINING)

    effects = r1.give_back(assign)

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r2")]
    assert effects.one(msg.Assign).delegations == 0
    event = effects.event(ev.RequestReentered)
    assert (event.kind, event.count, event.detail) == ("return", 1, "draining")


def test_more_returns_than_the_limit_end_the_request() -> None:
    bench = SchedulerBench(cluster(return_limit=1))
    r1 = bench.peer("r1", concurrency=4)
    assign = r1.give_back(bench.assigned(1)).one(msg.Assign)

    assert r1.give_back(assign).one(msg.Rejected).code is Code.RETURN_EXHAUSTED


def test_what_entered_and_came_back_is_adopted() -> None:
    bench = SchedulerBench()
    r1, _ = bench.peer("r1", state=ReplicaState.DRAINING), bench.peer("r2")

    effects = r1.give_back(msg.Entry(request=bench.request(1)))

    assert effects.receivers(msg.Assign) == [(fx.Inbox.REPLICA, "r2")]
    assert bench.scheduler.tickets["p/1/1"].returns == 1


def test_a_hand_back_of_an_earlier_life_of_the_replica_is_ignored() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    refusal = r1.refusal(bench.assigned(1))
    r1.register(incarnation=2, revision=1)

    assert len(bench.tell(refusal)) == 0


def test_a_hand_back_of_an_assignment_that_nobody_remembers_is_ignored() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    foreign = msg.Entry(request=bench.request(9), attempt=1007)

    assert len(r1.refuse(foreign)) == 0
    assert bench.scheduler.tickets == {}


def test_a_hand_back_of_another_submission_or_attempt_is_ignored() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", concurrency=4)
    assign = bench.assigned(1)
    first = msg.Entry(request=assign.request)
    later = msg.Entry(request=assign.request, attempt=assign.attempt, submission=2)

    assert len(r1.refuse(first)) == 0
    assert len(r1.refuse(later)) == 0
    assert bench.state_of(1) == "assigned"


def test_a_hand_back_of_a_life_whose_registration_is_still_on_its_way_is_taken() -> None:
    bench = SchedulerBench()
    bench.peer("r2")
    unknown = bench.peer("r1")
    unknown.registration = msg.Registration(
        replica="r1",
        incarnation=2,
        connection=1,
        revision=1,
        state=ReplicaState.READY,
        offers=[offer()],
        concurrency=1,
    )

    effects = unknown.give_back(msg.Entry(request=bench.request(1)))

    assert len(effects.sent(msg.Assign)) == 1


# --- lost ----------------------------------------------------------------------------------------


def test_the_last_will_of_a_replica_tells_every_origin_what_it_lost() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", concurrency=2)
    begun, assigned = bench.assigned(1), bench.assigned(2)
    r1.started(begun)

    effects = r1.gone()

    lost = effects.sent(msg.AttemptLost)
    assert [(one.id, one.attempt, one.started, one.code) for one in lost] == [
        ("p/1/1", begun.attempt, True, Code.REPLICA_LOST),
        ("p/1/2", assigned.attempt, False, Code.REPLICA_LOST),
    ]
    event = effects.event(ev.ReplicaChanged)
    assert (event.replica, event.state, event.detail) == ("r1", "lost", "last will")
    assert [bench.state_of(number) for number in (1, 2)] == ["lost", "lost"]


def test_deaths_are_in_the_journal_in_order_before_anybody_is_told() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1", concurrency=2)
    for number in (1, 2):
        r1.started(bench.assigned(number))

    effects = r1.gone()

    assert [(record.id, record.deaths) for record in effects.persisted] == [
        ("p/1/1", 1),
        ("p/1/2", 1),
    ]
    assert all(isinstance(effect, fx.Persist) for effect in effects[:2])


def test_the_will_of_another_connection_is_ignored() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    r1.register(connection=2)

    assert len(r1.gone(connection=1)) == 0
    assert bench.scheduler.replicas["r1"].state is ReplicaState.READY


def test_a_will_after_an_orderly_stop_is_no_loss() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    r1.register(state=ReplicaState.STOPPED)

    assert len(r1.gone()) == 0


def test_a_new_life_of_a_replica_loses_what_its_old_life_held() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    assign = bench.assigned(1)

    effects = r1.register(incarnation=2, connection=1, revision=1)

    assert effects.one(msg.AttemptLost).attempt == assign.attempt
    assert bench.scheduler.replicas["r1"].credit == 0


def test_a_replica_that_stops_loses_what_it_held() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    bench.assigned(1)

    assert len(r1.register(state=ReplicaState.STOPPED).sent(msg.AttemptLost)) == 1


def test_the_origin_asks_again_and_that_is_a_recovery() -> None:
    bench = SchedulerBench()
    r1, _ = bench.peer("r1"), bench.peer("r2")
    assign = bench.assigned(1)
    r1.started(assign)
    r1.gone()

    effects = again(bench, last_attempt=assign.attempt)

    second = effects.one(msg.Assign)
    assert (second.submission, second.attempt) == (2, assign.attempt + 1)
    assert second.delegations == 0
    event = effects.event(ev.RequestReentered)
    assert (event.kind, event.count) == ("lost", 1)
    assert effects.persisted[0].recoveries == 1


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_more_recoveries_than_the_limit_end_the_request(limit: int) -> None:
    bench = SchedulerBench(cluster(recovery_limit=limit))
    for number in range(limit + 1):
        bench.peer(f"r{number}")
    assign = bench.assigned(1)
    codes: list[Code] = []
    for number in range(limit + 1):
        holder = bench.scheduler.tickets["p/1/1"].replica
        assert holder is not None
        bench.tell(msg.Gone(source=holder, incarnation=1, connection=1))
        effects = again(bench, submission=number + 2, last_attempt=assign.attempt)
        codes += [rejected.code for rejected in effects.sent(msg.Rejected)]

    assert codes == [Code.REPLICA_LOST]


def test_a_request_that_ran_at_two_deaths_is_poisoned() -> None:
    bench = SchedulerBench()
    r1, r2 = bench.peer("r1"), bench.peer("r2")
    first = bench.assigned(1)
    r1.started(first)
    r1.ended(first, AttemptStatus.WORKER_DIED)
    second = again(bench, last_attempt=first.attempt).one(msg.Assign)
    r2.started(second)
    died = r2.ended(second, AttemptStatus.WORKER_DIED)
    assert died.persisted[0].deaths == 2

    rejected = again(bench, submission=3, last_attempt=second.attempt).one(msg.Rejected)

    assert rejected.code is Code.POISONED


def test_a_death_before_the_start_does_not_poison() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    assign = bench.assigned(1)

    effects = r1.ended(assign, AttemptStatus.WORKER_DIED, started=False)

    assert effects.persisted == []
    assert bench.scheduler.tickets["p/1/1"].deaths == 0
    assert bench.state_of(1) == "lost"


def test_a_worker_death_that_is_said_twice_counts_once() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    assign = bench.assigned(1)
    r1.started(assign)
    r1.ended(assign, AttemptStatus.WORKER_DIED)

    assert len(r1.ended(assign, AttemptStatus.WORKER_DIED)) == 0
    assert bench.scheduler.tickets["p/1/1"].deaths == 1


def test_a_recovery_stops_the_attempt_that_the_origin_gave_up() -> None:
    bench = SchedulerBench()
    bench.peer("r1")
    assign = bench.assigned(1)

    effects = again(bench, last_attempt=assign.attempt)

    stop = effects.one(msg.CancelAttempt)
    assert (stop.id, stop.attempt, stop.ordinal) == ("p/1/1", assign.attempt, assign.ordinal)


def test_a_recovery_that_is_sent_twice_counts_once() -> None:
    bench = SchedulerBench()
    r1 = bench.peer("r1")
    bench.assigned(1)
    r1.gone()
    again(bench)

    assert again(bench).emitted(ev.RequestReentered) == []
    assert bench.scheduler.tickets["p/1/1"].recoveries == 1


def test_the_first_submission_that_arrives_after_the_second_is_ignored() -> None:
    bench = SchedulerBench()
    bench.peer("r1", credit=False)
    again(bench, submission=2)

    assert len(bench.submit(1)) == 0
    assert bench.scheduler.tickets["p/1/1"].submission == 2


def test_a_recovery_of_what_was_never_heard_of_counts_too() -> None:
    bench = SchedulerBench(cluster(recovery_limit=1))
    bench.peer("r1", concurrency=4)

    assert again(bench, 1, submission=2).persisted[0].recoveries == 1
    assert again(bench, 2, submission=3).one(msg.Rejected).code is Code.REPLICA_LOST


def test_a_recovered_request_keeps_the_rung_it_had_reached() -> None:
    bench = SchedulerBench()
    s1 = bench.peer("s1", offer("decode", max_tokens=6))
    h1, _ = bench.peer("h1", offer("decode.heavy")), bench.peer("h2", offer("decode.heavy"))
    first = s1.delegate(msg.Entry(request=bench.request(1)), msg.DelegateReason.TOO_LONG).one(
        msg.Assign
    )
    h1.gone()

    second = again(bench, last_attempt=first.attempt).one(msg.Assign)

    assert (second.request.capability, second.delegations) == ("decode.heavy", 1)
