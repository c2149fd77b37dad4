from __future__ import annotations

import msgspec
import pytest

from anyserve.core.events import (
    AnyEvent,
    AttemptAdmitted,
    AttemptEnded,
    AttemptFirstToken,
    AttemptStarted,
    BusTrouble,
    Envelope,
    EpochChanged,
    FaultInjected,
    PhaseStarted,
    PolicyFailed,
    ReplicaChanged,
    ReplicaLoad,
    RequestDelegated,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestRouted,
    RunEnded,
    RunStarted,
    SchedulerLoad,
    SchedulerStarted,
    WorkerChanged,
)
from anyserve.core.messages import Load, Times
from anyserve.errors import AnyServeError
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.reducer_state import Memory
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.views import Level, QueueView, RequestView, RoutingCell, Snapshot, Stage

S = 1_000_000_000
MS = 1_000_000
ID = "p/1/0"
RUN = RunStarted(run="r1", scenario="mixed", seed=7, planned_requests=3, planned_s=2.0)


def offered(request_id: str = ID, capability: str = "decode") -> RequestOffered:
    return RequestOffered(
        id=request_id,
        capability=capability,
        prompt_tokens=8,
        max_tokens=4,
        entry="scheduler",
        intended_ns=0,
    )


def routed(attempt: int = 1000, replica: str = "s1") -> RequestRouted:
    return RequestRouted(
        id=ID,
        attempt=attempt,
        replica=replica,
        capability="decode",
        policy="least-loaded",
        reason="least",
        received_ns=0,
    )


def started(attempt: int = 1000) -> AttemptStarted:
    return AttemptStarted(id=ID, attempt=attempt, capability="decode", received_ns=0)


def folded(teller: Storyteller, memory: Memory | None = None) -> Snapshot:
    reducer = Reducer(memory)
    reducer.apply_all(teller.envelopes)
    return reducer.snapshot()


def only(snapshot: Snapshot) -> RequestView:
    (request,) = snapshot.requests
    return request


def test_a_request_moves_through_its_stages() -> None:
    teller, reducer = Storyteller(), Reducer()
    steps: list[tuple[str, AnyEvent, Stage]] = [
        ("player", offered(), Stage.OFFERED),
        (
            "scheduler",
            RequestQueued(id=ID, capability="decode", depth=1, received_ns=0),
            Stage.QUEUED,
        ),
        ("scheduler", routed(), Stage.BOUND),
        ("s1", started(), Stage.RUNNING),
        ("s1", AttemptFirstToken(id=ID, attempt=1000), Stage.STREAMING),
    ]
    for source, event, stage in steps:
        teller.say(source, 1, event)
        reducer.apply(teller.envelopes[-1])
        assert only(reducer.snapshot()).stage is stage
    view = only(reducer.snapshot())
    assert (view.replica, view.attempt, view.capability) == ("s1", 1000, "decode")
    assert reducer.snapshot().replicas[0].held == 1


def test_what_an_earlier_attempt_says_late_changes_nothing() -> None:
    teller = Storyteller()
    teller.say("player", 0, offered())
    teller.say("scheduler", 1, routed())
    delegated = RequestDelegated(
        id=ID,
        attempt=1000,
        replica="s1",
        reason="too_long",
        from_capability="decode",
        to_capability="decode.heavy",
        count=1,
    )
    teller.say("scheduler", 2, delegated)
    assert only(folded(teller)).stage is Stage.QUEUED
    teller.say("s1", 3, started())
    assert only(folded(teller)).stage is Stage.QUEUED
    teller.say("scheduler", 4, routed(1001, "h1"))
    teller.say("s1", 5, AttemptFirstToken(id=ID, attempt=1000))
    view = only(folded(teller))
    assert (view.stage, view.replica, view.delegations) == (Stage.BOUND, "h1", 1)


def test_routed_may_come_before_offered() -> None:
    teller = Storyteller()
    teller.say("scheduler", 1, routed())
    teller.say("s1", 2, started())
    before = folded(teller)
    assert (before.in_flight, before.routing) == (0, ())
    teller.say("player", 0, offered())
    after = folded(teller)
    assert only(after).stage is Stage.RUNNING
    assert after.routing == (RoutingCell("decode", "s1", 1, 0),)


def test_an_outcome_may_come_before_offered() -> None:
    teller = Storyteller()
    teller.say("player", 5, RequestOutcome(id=ID, outcome="completed", end_ns=5 * MS, n_tokens=2))
    assert folded(teller).counters.completed == 0
    teller.say("player", 0, offered())
    snapshot = folded(teller)
    assert (snapshot.counters.completed, snapshot.in_flight) == (1, 0)
    assert snapshot.recent[0].e2e_ms == 5.0


def test_the_order_between_sources_makes_no_difference() -> None:
    teller = Storyteller()
    teller.request(
        ID, [Leg("s1", end="lost"), Leg("s1", end="delegate"), Leg("h1", "decode.heavy")]
    )
    forward = folded(teller)
    sources = sorted({one.source for one in teller.envelopes}, reverse=True)
    shuffled = Storyteller()
    shuffled.envelopes = [
        one for source in sources for one in teller.envelopes if one.source == source
    ]
    backward = folded(shuffled)
    assert backward.counters == forward.counters
    assert backward.recent == forward.recent
    assert backward.routing == forward.routing
    assert [(one.kind, one.to_replica, one.outcome) for one in backward.ledger] == [
        (one.kind, one.to_replica, one.outcome) for one in forward.ledger
    ]


def test_settled_requests_leave_for_a_bounded_ring() -> None:
    teller = Storyteller()
    for number in range(5):
        teller.request(f"p/1/{number}", [Leg("s1")])
    snapshot = folded(teller, Memory(recent=2))
    assert [one.id for one in snapshot.recent] == ["p/1/3", "p/1/4"]
    assert snapshot.requests == ()
    assert snapshot.counters.completed == 5
    assert snapshot.counters.output_tokens == 55


def test_memory_is_bounded_in_flight_and_before_offered() -> None:
    teller = Storyteller()
    for number in range(4):
        teller.say("player", 0, offered(f"p/1/{number}"))
        teller.say("scheduler", 0, msgspec.structs.replace(routed(), id=f"x/1/{number}"))
    reducer = Reducer(Memory(in_flight=2, unoffered=2, shown_in_flight=1))
    reducer.apply_all(teller.envelopes)
    snapshot = reducer.snapshot()
    assert (snapshot.in_flight, len(snapshot.requests)) == (2, 1)
    assert snapshot.counters.forgotten == 2
    assert list(reducer.unoffered) == ["x/1/2", "x/1/3"]


def test_the_ledger_follows_a_delegation_to_its_end() -> None:
    teller = Storyteller()
    teller.request(ID, [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy")])
    snapshot = folded(teller)
    (entry,) = snapshot.ledger
    assert (entry.kind, entry.reason) == ("delegate", "too_long")
    assert (entry.from_replica, entry.to_replica) == ("s1", "h1")
    assert (entry.from_capability, entry.to_capability) == ("decode", "decode.heavy")
    assert entry.outcome == "completed"
    assert entry.e2e_ms == snapshot.recent[0].e2e_ms
    assert snapshot.routing == (RoutingCell("decode", "h1", 1, 1),)
    assert (snapshot.counters.delegations, snapshot.counters.delegated_requests) == (1, 1)
    replicas = {one.id: (one.delegated_in, one.delegated_out) for one in snapshot.replicas}
    assert replicas == {"h1": (1, 0), "s1": (0, 1)}


@pytest.mark.parametrize(
    ("end", "counter"), [("lost", "recoveries"), ("refuse", "refusals"), ("return", "returns")]
)
def test_other_ways_back_are_counted_apart(end: str, counter: str) -> None:
    teller = Storyteller()
    teller.request(ID, [Leg("s1", end=end), Leg("s2")])
    snapshot = folded(teller)
    assert getattr(snapshot.counters, counter) == 1
    assert snapshot.counters.delegations == 0
    (entry,) = snapshot.ledger
    assert (entry.kind, entry.from_replica, entry.to_replica) == (end, "s1", "s2")
    assert snapshot.recent[0].recoveries == (end == "lost")
    assert sum(one.lost for one in snapshot.replicas) == (end == "lost")


def test_repeats_count_once_and_gaps_are_shown() -> None:
    teller = Storyteller()
    teller.request(ID, [Leg("s1", end="delegate"), Leg("h1", "decode.heavy")])
    once = folded(teller)
    teller.envelopes *= 2
    assert folded(teller) == once
    teller.envelopes = teller.envelopes[1:20]
    reducer = Reducer()
    for one in teller.envelopes:
        if one.seq != 1 or one.source != "player":
            reducer.apply(one)
    assert reducer.snapshot().events_missing == 1


def test_replicas_show_state_worker_and_load() -> None:
    teller = Storyteller()
    teller.register("s1", {"decode": 256}, concurrency=8)
    teller.say("s1", 1, WorkerChanged(replica="s1", state="ready", pid=42))
    teller.say("s1", 2, WorkerChanged(replica="s1", state="hung", detail="no step for 30 s"))
    for second in range(100):
        load = Load(running=second % 8, waiting=1, kv_usage=0.5, tokens_per_s=9.0)
        teller.say("s1", second * S, ReplicaLoad(replica="s1", load=load))
    (replica,) = folded(teller).replicas
    assert (replica.state, replica.concurrency, dict(replica.offers)) == (
        "ready",
        8,
        {"decode": 256},
    )
    assert (replica.worker, replica.worker_pid) == ("hung", 42)
    assert (replica.running, replica.waiting, replica.kv_usage) == (3, 1, 0.5)
    assert len(replica.history) == 61
    assert replica.history[-1].at_ns - replica.history[0].at_ns == 60 * S


def test_a_lost_replica_has_no_load_and_an_older_life_says_nothing() -> None:
    teller = Storyteller()
    teller.register("s1", {"decode": None})
    teller.say("s1", 1, ReplicaLoad(replica="s1", load=Load(running=2)))
    teller.say("scheduler", 2, ReplicaChanged(replica="s1", state="lost", incarnation=3))
    teller.say("s1", 3, ReplicaChanged(replica="s1", state="ready", incarnation=1))
    (replica,) = folded(teller).replicas
    assert (replica.state, replica.running, dict(replica.offers)) == (
        "lost",
        None,
        {"decode": None},
    )


def test_queues_show_what_waits_per_capability() -> None:
    teller = Storyteller()
    teller.register("e1", {"embedding": None})
    teller.say("player", 0, offered())
    teller.say("scheduler", 1, RequestQueued(id=ID, capability="decode", depth=1, received_ns=0))
    teller.say("scheduler", 2, SchedulerLoad(queues={"decode": 3}, bound=1))
    assert folded(teller).queues == (
        QueueView("decode", 3, 1, 1, 0, 0, 0, 0),
        QueueView("embedding", None, 0, 0, 0, 0, 0, 0),
    )


def test_outcomes_are_counted_by_code_and_capability() -> None:
    teller = Storyteller()
    for number, outcome in enumerate(("failed", "rejected", "cancelled", "expired")):
        request_id = f"p/1/{number}"
        teller.say("player", 0, offered(request_id))
        settled = RequestOutcome(id=request_id, outcome=outcome, end_ns=1, code=f"c{number}")
        teller.say("player", 1, settled)
        teller.say("player", 2, settled)
    snapshot = folded(teller)
    counters = snapshot.counters
    assert (counters.failed, counters.rejected, counters.cancelled, counters.expired) == (1,) * 4
    assert snapshot.by_code == {"c0": 1, "c1": 1, "c2": 1, "c3": 1}
    assert snapshot.ttft_p50_ms is None


def test_latencies_of_recent_requests() -> None:
    teller = Storyteller()
    teller.request(ID, [Leg("s1")])
    snapshot = folded(teller)
    assert snapshot.ttft_p50_ms == snapshot.ttft_p95_ms == 23.0
    assert snapshot.e2e_p95_ms == 123.0
    assert snapshot.replicas[0].ttft_p95_ms == 23.0


def test_the_run_its_phases_and_faults() -> None:
    teller = Storyteller()
    teller.say("player", S, RUN)
    teller.say("player", 2 * S, PhaseStarted(name="burst", planned_s=5))
    teller.say("player", 3 * S, FaultInjected(action="kill", target="s1", line=22))
    teller.say("scheduler", 3 * S, SchedulerStarted(epoch=2, policy="p2c", replayed=4))
    teller.say("scheduler", 3 * S, SchedulerStarted(epoch=1, policy="old", replayed=0))
    snapshot = folded(teller)
    assert snapshot.run is not None
    assert (snapshot.run.run, snapshot.run.started_ns, snapshot.run.ended) == ("r1", S, None)
    assert [(one.name, one.at_ns) for one in snapshot.phases] == [("burst", 2 * S)]
    assert [(one.action, one.line) for one in snapshot.faults] == [("kill", 22)]
    assert (snapshot.epoch, snapshot.policy, snapshot.now_ns) == (2, "p2c", 3 * S)
    teller.say("player", 4 * S, RunEnded(reason="done"))
    ended = folded(teller).run
    assert ended is not None
    assert ended.ended == "done"


def test_the_end_of_an_unknown_run_is_ignored() -> None:
    teller = Storyteller()
    teller.say("player", S, RunEnded(reason="done"))
    assert folded(teller).run is None


def test_times_of_another_boot_are_shown_as_now() -> None:
    teller = Storyteller(clocks={"h1": ("far", 10**15)})
    teller.register("h1", {"decode": None}, now=1)
    teller.say("player", 5 * S, RUN)
    teller.register("h1", {"decode": None}, now=6 * S)
    snapshot = folded(teller)
    assert snapshot.now_ns == 5 * S
    assert snapshot.replicas[0].changed_ns == 5 * S


def test_seconds_are_bounded() -> None:
    teller = Storyteller()
    for second in range(9):
        teller.say("player", second * S, offered(f"p/1/{second}"))
    assert [one.second for one in folded(teller, Memory(seconds=3)).seconds] == [6, 7, 8]


def test_troubles_are_counted() -> None:
    teller = Storyteller()
    teller.say("scheduler", 0, PolicyFailed(policy="x:Y", id=ID, error="boom"))
    teller.say("scheduler", 0, BusTrouble(kind="malformed", detail="", count=2))
    teller.say("scheduler", 0, BusTrouble(kind="lag", detail=""))
    counters = folded(teller).counters
    assert (counters.policy_failures, counters.malformed, counters.bus_troubles) == (1, 2, 1)


def test_an_attempt_that_was_cancelled_neither_completed_nor_failed() -> None:
    teller = Storyteller()
    for attempt, status in enumerate(("cancelled", "failed", "worker_died", "completed")):
        ended = AttemptEnded(
            id=ID, attempt=attempt, status=status, n_tokens=0, times=Times(received_ns=0)
        )
        teller.say("s1", 0, ended)
    (replica,) = folded(teller).replicas
    assert (replica.completed, replica.failed) == (1, 2)


def test_an_entry_that_waits_is_bound_to_its_replica() -> None:
    teller = Storyteller()
    teller.say("player", 0, offered())
    admitted = AttemptAdmitted(id=ID, attempt=1, capability="decode", position=2, received_ns=0)
    teller.say("s1", 1, admitted)
    view = only(folded(teller))
    assert (view.stage, view.replica) == (Stage.BOUND, "s1")


def test_a_second_offer_of_the_same_request_is_ignored() -> None:
    teller = Storyteller()
    teller.say("player", 0, offered())
    teller.say("player", 1, offered(capability="other"))
    snapshot = folded(teller)
    assert snapshot.counters.offered == 1
    assert only(snapshot).asked == "decode"


def test_traces_come_from_the_same_memory() -> None:
    teller = Storyteller()
    teller.request(ID, [Leg("s1")])
    reducer = Reducer()
    reducer.apply_all(teller.envelopes)
    assert reducer.trace(ID).total_ns == 123 * MS
    with pytest.raises(AnyServeError, match="not remembered here"):
        reducer.trace("p/1/9")


def test_a_snapshot_does_not_change_afterwards() -> None:
    teller = Storyteller()
    teller.register("s1", {"decode": None})
    teller.request(ID, [Leg("s1", end="delegate"), Leg("s2")])
    reducer = Reducer()
    reducer.apply_all(teller.envelopes)
    snapshot = reducer.snapshot()
    copy = repr(snapshot)
    teller.request("p/1/1", [Leg("s1", end="lost"), Leg("s2")])
    reducer.apply_all(teller.envelopes)
    assert repr(snapshot) == copy


def test_events_without_a_handler_are_only_counted() -> None:
    reducer = Reducer()
    event = EpochChanged(epoch=2)
    reducer.apply(Envelope(t=0, source="s1", incarnation=1, seq=0, event=event))
    snapshot = reducer.snapshot()
    assert snapshot.counters.events == 1
    assert [(one.level, one.text) for one in snapshot.notices] == [
        (Level.INFO, "saw scheduler life 2")
    ]
