"""What is recorded of a simulation of which a share of the requests is kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

from anyserve.core.events import (
    AnyEvent,
    AttemptFirstToken,
    RequestFirstToken,
    RequestQueued,
    RequestSubmitted,
)
from anyserve.sim.recorder import Calls, Counted, Enveloped, Recorder, Sample
from anyserve.sim.sampled_log import SampledLog
from anyserve.sim.simulation import Simulation
from anyserve.telemetry.tally import Tally
from anyserve.workload.compile import Compiled, compile_scenario
from anyserve.workload.load import parse_scenario

SHARE = 0.3
UNCOUNTED = {RequestSubmitted, RequestQueued, AttemptFirstToken, RequestFirstToken}
TEXT = """
version: 1
name: sampled
cluster:
  capabilities: {decode: {}}
  replicas:
    r: {count: 2, capabilities: [decode], concurrency: 2, engine: {kind: echo}}
traffic:
  phases: [{name: all, duration: 4s}]
  streams:
    chat: {capability: decode, rate: 20, arrivals: poisson, prompt_tokens: 8, output_tokens: 4}
"""


def scenario() -> Compiled:
    return compile_scenario(parse_scenario(TEXT), seed=3)


def played(sample: Sample, recorder: Recorder) -> None:
    Simulation(scenario(), recorder, sample=sample).run()


def sampled_run() -> list[Any]:
    """The envelopes that are kept of a run."""
    kept, sample = list[Any](), Sample(SHARE)
    played(sample, SampledLog(Enveloped(kept.append), sample, Tally()))
    return kept


def test_of_a_kept_request_all_is_recorded_and_of_others_nothing() -> None:
    whole, sampled, takes = list[Any](), sampled_run(), Sample(SHARE).takes
    played(Sample(1.0), Enveloped(whole.append))

    def steps(envelopes: list[Any]) -> list[tuple[int, str, AnyEvent]]:
        kept = [one for one in envelopes if takes(getattr(one.event, "id", ""))]
        plain = [one for one in kept if type(one.event).__name__ != "RequestRouted"]
        return [(one.t, one.source, one.event) for one in plain]

    requests = {one.event.id for one in whole if hasattr(one.event, "id")}
    kept = {one.event.id for one in sampled if hasattr(one.event, "id")}
    assert kept == {one for one in requests if takes(one)}
    assert 0 < len(kept) < len(requests)
    assert steps(sampled) == steps(whole)


def test_what_is_kept_is_numbered_without_gaps() -> None:
    lives: Counter[tuple[str, int]] = Counter()
    for one in sampled_run():
        assert one.seq == lives[one.source, one.incarnation]
        lives[one.source, one.incarnation] += 1


def test_all_are_counted_and_events_that_nobody_counts_are_not_made() -> None:
    whole, tally, made = Tally(), Tally(), Counter[type]()
    played(Sample(1.0), Counted(whole))
    nobody = Sample(0.0)
    log = SampledLog(Recorder(), nobody, tally)

    def record(t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        made[type(event)] += 1
        log.take(t, source, incarnation, seq, event)

    played(nobody, Calls(record))
    assert {name: one.ended for name, one in tally.replicas.items()} == {
        name: one.ended for name, one in whole.replicas.items()
    }
    assert tally.duration_s == whole.duration_s
    assert not UNCOUNTED & set(made)
