"""Making a simulation as fast as a recorded run was."""

from __future__ import annotations

import dataclasses

import pytest
from simulating import PAIR, compiled, merged, simulate

from anyserve.core.spec import EngineSpec
from anyserve.sim.matching import EngineKind, Scales, Times, kind_of, match, scaled, times_of
from anyserve.telemetry.tally import Tally
from anyserve.workload.compile import Compiled

LLM = kind_of(EngineSpec(model="smollm2-135m"))
EMBEDDER = kind_of(EngineSpec(model="minilm", task="embed"))
OTHER = kind_of(EngineSpec(model="another"))

WITH_EMBEDDINGS = merged(
    PAIR,
    {
        "cluster": {
            "capabilities": {"embedding": {}},
            "replicas": {
                "e": {
                    "capabilities": ["embedding"],
                    "engine": {"kind": "model", "model": "minilm", "max_model_len": 256},
                }
            },
        },
        "traffic": {
            "streams": {"search": {"capability": "embedding", "rate": 3, "prompt_tokens": 40}}
        },
    },
)


def measured(what: Compiled, scales: Scales) -> dict[EngineKind, float]:
    cluster = scaled(what.cluster, scales)
    tally = Tally()
    for envelope in simulate(dataclasses.replace(what, cluster=cluster)):
        tally.add(envelope)
    return times_of(tally.requests, cluster)


def test_the_speed_of_every_kind_of_engine_is_found_again() -> None:
    what = compiled(WITH_EMBEDDINGS)
    live = measured(what, {LLM: 1.7, EMBEDDER: 0.6})

    found = match(live, lambda scales: measured(what, scales)).scales

    assert found == {LLM: pytest.approx(1.7, rel=0.005), EMBEDDER: pytest.approx(0.6, rel=0.01)}


def test_a_run_as_fast_as_its_profiles_says_so_exactly() -> None:
    what = compiled(PAIR)

    assert match(measured(what, {}), lambda scales: measured(what, scales)) == ({LLM: 1.0}, 0.0)


def test_few_answers_say_nothing_of_an_engine() -> None:
    changes = {"traffic": {"phases": [{"name": "all", "duration": "1s"}]}}

    assert measured(compiled(merged(PAIR, changes)), {}) == {}


def test_an_echo_has_no_speed_to_match() -> None:
    assert measured(compiled(PAIR, "cluster.replicas[*].engine.kind=echo"), {}) == {}


@pytest.mark.parametrize("power", [0.6, 1.0, 3.5, 7.0])
@pytest.mark.parametrize("target", [0.5, 1.0, 1.2, 40.0])
def test_engines_near_their_limit_are_found_without_going_back_and_forth(
    power: float, target: float
) -> None:
    asked: list[float] = []

    def simulated(scales: Scales) -> Times:
        asked.append(scales[LLM])
        return {LLM: 70.0 * scales[LLM] ** power}

    found = match({LLM: 70.0 * target}, simulated)

    assert 70.0 * found.scales[LLM] ** power == pytest.approx(70.0 * target, rel=0.006)
    assert len(asked) <= 5


def test_a_jump_at_the_speed_looked_for_is_come_near_to() -> None:
    def jumps(scales: Scales) -> Times:
        return {LLM: 50.0 if scales[LLM] < 1.3 else 90.0}

    found = match({LLM: 70.0}, jumps)

    assert found.scales == {LLM: pytest.approx(1.3, rel=0.08)}
    assert found.off > 0.2


def test_it_ends_though_nothing_comes_near() -> None:
    asked: list[float] = []

    def stubborn(scales: Scales) -> Times:
        asked.append(scales[LLM])
        return {LLM: 10.0}

    found = match({LLM: 1000.0, OTHER: 5.0}, stubborn)

    assert max(asked) == 1000.0
    assert len(asked) == 8
    assert found.scales == {LLM: 1.0, OTHER: 1.0}


def test_a_scale_comes_on_top_of_what_the_scenario_says() -> None:
    what = compiled(PAIR, "cluster.replicas[h].engine.step_scale=2")

    scales = {one.group: one.engine.step_scale for one in scaled(what.cluster, {LLM: 1.5}).replicas}

    assert scales == {"d": 1.5, "h": 3.0}


def test_engines_with_other_threads_are_told_apart() -> None:
    assert kind_of(EngineSpec(model="m", threads=4)).label == "m (4 threads)"
    assert LLM.label == "smollm2-135m"
