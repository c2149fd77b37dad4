"""Whole simulations: what happens to whom, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from simulating import PAIR, compiled, log_of, merged, simulate, violations

from anyserve.core.counts import Count, RoutedCount
from anyserve.core.events import (
    AnyEvent,
    AttemptEnded,
    Envelope,
    FaultInjected,
    ReplicaChanged,
    RequestDelegated,
    RequestFirstToken,
    RequestOffered,
    RequestOutcome,
    RequestRouted,
    RunEnded,
    RunStarted,
    SchedulerStarted,
    WorkerChanged,
)
from anyserve.errors import UsageError
from anyserve.sim.recorder import Calls, Enveloped, Recorder, Sample
from anyserve.sim.simulation import Phase, Simulation
from anyserve.sim.watch import Watch
from anyserve.telemetry.summary import RunFacts, summarise, summary_of
from anyserve.telemetry.tally import Tally

MS = 1_000_000
ROOT = Path(__file__).parents[3]
ONE: dict[str, Any] = {
    "version": 1,
    "name": "one",
    "cluster": {
        "capabilities": {"decode": {}},
        "replicas": {
            "d1": {
                "capabilities": ["decode"],
                "concurrency": 1,
                "engine": {"kind": "echo", "step": "10ms", "max_model_len": 256},
            }
        },
    },
    "traffic": {
        "phases": [{"name": "all", "duration": "1s"}],
        "streams": {
            "chat": {"capability": "decode", "rate": 1, "prompt_tokens": 8, "output_tokens": 5}
        },
    },
    "sim": {"network": {"latency": "1ms"}},
}


def of(events: list[Envelope], kind: type) -> list[Any]:
    return [one.event for one in events if isinstance(one.event, kind)]


def outcomes(events: list[Envelope]) -> Counter[str]:
    return Counter(one.outcome for one in of(events, RequestOutcome))


def test_the_times_of_one_request_are_those_of_its_hops_and_steps() -> None:
    events = simulate(compiled(ONE))

    (offered,), (outcome,) = of(events, RequestOffered), of(events, RequestOutcome)
    at = {type(one.event): one.t - offered.intended_ns for one in events}
    assert at[RequestRouted] == 1 * MS
    assert at[RequestFirstToken] == (2 + 1 + 10 + 1) * MS
    assert outcome.end_ns - offered.intended_ns == (2 + 1 + 5 * 10 + 1) * MS
    assert outcome.itl_ns == {10 * MS: 4}
    (ended,) = of(events, AttemptEnded)
    assert (ended.n_tokens, ended.times.prefill_ns, ended.times.decode_ns) == (5, 10 * MS, 40 * MS)
    assert ended.times.engine_wait_ns == 1 * MS, "from the replica to its worker"


def test_a_run_begins_when_all_are_ready_and_ends_with_the_last_outcome() -> None:
    events = simulate(compiled(merged(ONE, {"sim": {"load": "3s"}})))

    started = next(one for one in events if isinstance(one.event, RunStarted))
    ready = next(
        one
        for one in events
        if isinstance(one.event, ReplicaChanged) and one.event.state == "ready"
    )
    assert ready.t == 3_000 * MS
    assert started.t >= ready.t + 200 * MS
    assert events[-1].event == RunEnded(reason="completed") or events[-1].t > started.t


def test_waiting_requests_queue_for_one_slot_in_order() -> None:
    events = simulate(compiled(ONE, "traffic.streams.chat.rate=100"))

    ended = [one.id for one in of(events, RequestOutcome)]
    assert len(ended) == 100
    assert ended == [one.id for one in of(events, RequestOffered)]


def test_the_same_seed_gives_the_same_bytes_under_any_hash_seed() -> None:
    code = (
        "import sys, hashlib; sys.path.insert(0, 'tests/support')\n"
        "from simulating import PAIR, compiled, log_of, simulate\n"
        "print(hashlib.sha256(log_of(simulate(compiled(PAIR)))).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "99")
    }
    assert len(printed) == 1


def test_another_seed_gives_another_run() -> None:
    assert log_of(simulate(compiled(PAIR, seed=1))) != log_of(simulate(compiled(PAIR, seed=2)))


def test_a_wrong_door_costs_one_delegation() -> None:
    events = simulate(compiled(PAIR))

    delegated = of(events, RequestDelegated)
    assert {one.reason for one in delegated} == {"not_registered"}
    assert all(one.count == 1 for one in delegated)
    assert outcomes(events) == {"completed": len(of(events, RequestOffered))}


FAULTS: dict[str, dict[str, Any]] = {
    "kill": {"at": "4s", "kill": {"replica": "d-1"}},
    "kill-worker": {"at": "4s", "kill": {"worker": "d-1"}},
    "hang": {"at": "4s", "for": "3s", "hang": {"replica": "d-1"}},
    "hang-worker": {"at": "4s", "hang": {"worker": "d-1"}},
    "slow": {"at": "4s", "for": "4s", "slow": {"replica": "d-1", "factor": 5}},
    "drain": {"at": "4s", "for": "4s", "drain": {"replica": "d-1"}},
    "partition": {"at": "4s", "for": "2s", "partition": {"replica": "d-1"}},
    "long-partition": {"at": "4s", "for": "12s", "partition": {"replica": "d-1"}},
    "drop": {"at": "4s", "for": "4s", "drop": {"replica": "d-1", "share": 0.2}},
    "duplicate": {"at": "4s", "for": "4s", "duplicate": {"replica": "d-1", "share": 0.5}},
    "delay": {"at": "4s", "for": "4s", "delay": {"replica": "d-1", "by": "80ms"}},
    "restart-broker": {"at": "4s", "restart-broker": {"down": "1s"}},
    "restart-scheduler": {"at": "4s", "restart-scheduler": {"down": "1s"}},
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_happens_and_no_request_is_lost_to_it(name: str) -> None:
    fault = FAULTS[name]
    scenario = merged(PAIR, {"faults": [fault], "cluster": {"recovery": {"limit": 3}}})
    what, watch = compiled(scenario, seed=3), Watch()

    events = simulate(what, watch=watch)

    (action,) = fault.keys() - {"at", "for"}
    injected = of(events, FaultInjected)
    assert injected[0].action == action
    assert len(injected) == 1 + ("for" in fault)
    assert violations(what, events) == []
    assert (watch.shortcuts, watch.idle) == ([], [])
    found = outcomes(events)
    assert sum(found.values()) == len(what.plan.requests)
    assert found["completed"] == len(what.plan.requests)


def test_a_killed_worker_is_started_again_and_its_requests_recover() -> None:
    busy = merged(PAIR, {"traffic": {"streams": {"chat": {"rate": 12}}}})
    events = simulate(compiled(merged(busy, {"faults": [FAULTS["kill-worker"]]}), seed=3))

    states = [one.state for one in of(events, WorkerChanged) if one.replica == "d-1"]
    assert states == ["started", "ready", "exited", "started", "ready"]
    assert any(one.submissions == 2 for one in of(events, RequestOutcome))


def test_a_hung_worker_is_killed_after_a_while() -> None:
    scenario = merged(PAIR, {"faults": [FAULTS["hang-worker"]]})
    events = simulate(compiled(scenario, seed=3))

    states = [one.state for one in of(events, WorkerChanged) if one.replica == "d-1"]
    assert states == ["started", "ready", "hung", "exited", "started", "ready"]


def test_a_restarted_scheduler_replays_its_journal() -> None:
    scenario = merged(PAIR, {"faults": [FAULTS["restart-scheduler"]]})
    lives = of(simulate(compiled(scenario)), SchedulerStarted)

    assert [life.epoch for life in lives] == [1, 2]
    assert lives[0].replayed == -1
    assert lives[1].replayed > 0


def test_a_slow_replica_takes_so_many_times_as_long() -> None:
    slow = {"at": "0s", "slow": {"replica": "d1", "factor": 3}}
    (outcome,) = of(simulate(compiled(merged(ONE, {"faults": [slow]}))), RequestOutcome)

    assert outcome.itl_ns == {31_622_777: 4}


def test_tokens_that_were_made_before_a_deadline_have_reached_the_client() -> None:
    events = simulate(compiled(ONE, "traffic.streams.chat.deadline=40ms"))

    (outcome,) = of(events, RequestOutcome)
    assert (outcome.outcome, outcome.n_tokens) == ("expired", 3)


def test_a_scheduler_that_costs_time_handles_one_message_after_the_other() -> None:
    quick = simulate(compiled(ONE, "traffic.streams.chat.rate=20"))
    slow = simulate(compiled(ONE, "traffic.streams.chat.rate=20", "sim.scheduler_cost=5ms"))

    first = [of(events, RequestOutcome)[0].end_ns for events in (quick, slow)]
    assert first[1] > first[0]


def test_the_run_can_be_stopped_early() -> None:
    events: list[Envelope] = []
    simulation = Simulation(compiled(PAIR), Enveloped(events.append))
    while simulation.progress().settled < 5:
        simulation.advance(50)
    simulation.stop("stopped: interrupted")
    simulation.run()

    assert simulation.progress().phase is Phase.OVER
    assert of(events, RunEnded) == [RunEnded(reason="stopped: interrupted")]
    assert outcomes(events)["completed"] >= 5
    assert len(of(events, RequestOffered)) == sum(outcomes(events).values())


def test_time_can_be_advanced_to_a_moment_only() -> None:
    simulation = Simulation(compiled(PAIR), Recorder())
    while simulation.progress().phase is Phase.STARTING:
        simulation.advance(10)
    for _ in range(1_000):
        simulation.advance(100, until_s=5.0)

    assert 4.0 < simulation.progress().now_s <= 5.0


def test_handlers_are_refused_by_name() -> None:
    app = {
        "version": 1,
        "name": "app",
        "cluster": {
            "capabilities": {"greet": {}},
            "replicas": {"a1": {"capabilities": ["greet"], "app": "hello:app"}},
        },
        "traffic": {
            "phases": [{"name": "all", "duration": "1s"}],
            "streams": {"greetings": {"capability": "greet", "rate": 1, "payload": "you"}},
        },
    }
    with pytest.raises(UsageError, match="a1 runs hello:app"):
        Simulation(compiled(app), Recorder())


def test_decisions_that_are_only_counted_are_the_same_decisions() -> None:
    what, counted = compiled(PAIR), list[str]()

    class Routes(Recorder):
        def count(self, t: int, source: str, count: Count) -> None:
            del t, source
            if isinstance(count, RoutedCount):
                counted.append(count.replica)

    Simulation(what, Routes(), sample=Sample(0.0)).run()

    assert counted == [one.replica for one in of(simulate(what), RequestRouted)]


def test_events_followed_while_it_runs_count_like_those_of_its_log() -> None:
    followed, envelopes = Tally(), list[Envelope]()
    keep = Enveloped(envelopes.append)

    def record(t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        keep.take(t, source, incarnation, seq, event)
        followed.follow(t, source, incarnation, seq, event)

    Simulation(compiled(PAIR), Calls(record)).run()
    assert summary_of(followed, {}, RunFacts()) == summarise(envelopes)
