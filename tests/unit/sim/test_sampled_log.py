"""What is recorded of a simulation of which a share of the requests is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from anyserve.core.counts import Count
from anyserve.core.events import AnyEvent
from anyserve.sim.recorder import Enveloped, Recorder, Sample
from anyserve.sim.sampled_log import SampledLog
from anyserve.sim.simulation import Simulation
from anyserve.telemetry.summary import RunFacts, Slo, Summary, summary_of
from anyserve.telemetry.tally import Tally
from anyserve.workload.compile import Compiled, compile_scenario
from anyserve.workload.load import load_scenario, parse_scenario

SHARE = 0.3
SCENARIOS = Path(__file__).parents[3] / "scenarios"
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


def summary_of_run(scenario_file: str, share: float) -> Summary:
    """The summary of a shipped scenario of which such a share is told and all is counted."""
    path = SCENARIOS / scenario_file
    what = compile_scenario(load_scenario(path), seed=5, engine_kind=lambda _: "model")
    sample, tally = Sample(share), Tally()
    log = SampledLog(Recorder(), sample, tally)
    Simulation(what, log, sample=sample, scenario_dir=str(SCENARIOS)).run()
    return summary_of(tally, {"*": Slo(ttft_ms=200.0)}, RunFacts())


@pytest.mark.parametrize("scenario_file", ["mixed.yaml", "faults.yaml", "burst.yaml"])
def test_requests_come_to_the_same_whether_they_are_told_or_only_counted(
    scenario_file: str,
) -> None:
    told = summary_of_run(scenario_file, 1.0)

    assert told.requests.completed > 20
    assert summary_of_run(scenario_file, 0.0) == told
    assert summary_of_run(scenario_file, SHARE) == told


def test_of_a_request_that_is_only_counted_no_event_is_made_unless_it_seldom_happens() -> None:
    made, counted = Counter[str](), Counter[str]()

    class Kinds(Recorder):
        def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
            del t, source, incarnation, seq
            if hasattr(event, "id"):
                made[type(event).__name__] += 1

        def count(self, t: int, source: str, count: Count) -> None:
            del t, source
            counted[type(count).__name__] += 1

    played(Sample(0.0), Kinds())
    assert not made
    each = {"OfferedCount", "RoutedCount", "StartedCount", "EndedCount", "OutcomeCount"}
    assert set(counted) == each
    assert len(set(counted.values())) == 1
