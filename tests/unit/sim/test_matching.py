"""Making a simulation as fast as a recorded run was."""

from __future__ import annotations

import dataclasses

import pytest
from simulating import PAIR, compiled, merged, simulate

from anyserve.core.spec import EngineSpec
from anyserve.sim.engine_times import (
    Times,
    TimesByKind,
    kind_of,
    prompts_of,
    times_of,
)
from anyserve.sim.matching import AS_IT_SAYS, Scale, Scales, match, scaled, simulated_times
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


def measured(what: Compiled, scales: Scales) -> TimesByKind:
    """As of a recorded run, by its event log."""
    cluster = scaled(what.cluster, scales)
    tally = Tally()
    envelopes = simulate(dataclasses.replace(what, cluster=cluster))
    for envelope in envelopes:
        tally.add(envelope)
    return times_of(tally.requests, prompts_of(envelopes), cluster)


def counted(what: Compiled, scales: Scales) -> TimesByKind:
    """As of a simulation of which nothing is kept."""
    return simulated_times(what, scales, "")


def test_what_is_counted_is_what_the_log_says() -> None:
    what = compiled(WITH_EMBEDDINGS)
    times = measured(what, {})

    assert counted(what, {}) == times
    llm = times[LLM]
    assert llm.prompt is not None
    assert llm.prompt > llm.token
    assert times[EMBEDDER].prompt is None


@pytest.mark.parametrize("prompts", [0.5, 1.0])
def test_the_speed_of_every_kind_of_engine_is_found_again(prompts: float) -> None:
    longer = {"traffic": {"phases": [{"name": "all", "duration": "120s"}]}}
    what = compiled(merged(WITH_EMBEDDINGS, longer))
    live = measured(what, {LLM: Scale(1.7, prompts), EMBEDDER: Scale(0.6)})

    found = match(live, lambda scales: counted(what, scales))

    assert found.off <= 0.005
    assert found.scales[LLM].steps == pytest.approx(1.7, rel=0.005)
    assert found.scales[LLM].prompts == pytest.approx(prompts, rel=0.02)
    assert found.scales[EMBEDDER].steps == pytest.approx(0.6, rel=0.01)
    assert found.scales[EMBEDDER].prompts == 1.0


def test_an_engine_beyond_its_limit_is_come_near_to() -> None:
    """There both numbers lengthen the same queue of prompts, and times jump from scale to scale."""
    what = compiled(PAIR)
    live = measured(what, {LLM: Scale(1.7, 4.0)})

    found = match(live, lambda scales: counted(what, scales))

    assert found.off <= 0.011
    assert found.scales[LLM].steps == pytest.approx(1.7, rel=0.05)
    assert found.scales[LLM].prompts == pytest.approx(4.0, rel=0.08)


def test_a_run_as_fast_as_its_profiles_says_so_exactly() -> None:
    what = compiled(PAIR)
    found = match(measured(what, {}), lambda scales: counted(what, scales))

    assert found == ({LLM: AS_IT_SAYS}, 0.0)


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
    asked: list[Scale] = []

    def simulated(scales: Scales) -> TimesByKind:
        asked.append(scales[LLM])
        return {LLM: Times(70.0 * scales[LLM].steps ** power)}

    found = match({LLM: Times(70.0 * target)}, simulated)

    assert 70.0 * found.scales[LLM].steps ** power == pytest.approx(70.0 * target, rel=0.006)
    assert len(asked) <= 3


@pytest.mark.parametrize("steps", [0.3, 0.8, 1.0, 5.0])
@pytest.mark.parametrize("prompts", [0.25, 1.0, 9.0])
@pytest.mark.parametrize("busy", [0.0, 0.1, 0.3])
def test_steps_and_prompts_are_told_apart(steps: float, prompts: float, busy: float) -> None:
    """`busy`: the share of time in which prompts keep others from decoding."""

    def simulated(scales: Scales) -> TimesByKind:
        scale = scales[LLM]
        step_ns = 30.0 * scale.steps
        prompt_ns = 60.0 * scale.steps * scale.prompts
        return {LLM: Times(step_ns + busy * prompt_ns, step_ns + prompt_ns)}

    found = match(simulated({LLM: Scale(steps, prompts)}), simulated)

    assert found.off <= 0.005
    assert found.scales[LLM].steps == pytest.approx(steps, rel=0.02)
    assert found.scales[LLM].prompts == pytest.approx(prompts, rel=0.04)


def test_a_jump_at_the_speed_looked_for_is_come_near_to() -> None:
    def jumps(scales: Scales) -> TimesByKind:
        return {LLM: Times(50.0 if scales[LLM].steps < 1.3 else 90.0)}

    found = match({LLM: Times(70.0)}, jumps)

    assert found.scales[LLM].steps == pytest.approx(1.3, rel=0.08)
    assert found.off > 0.2


def test_it_ends_though_nothing_comes_near() -> None:
    asked: list[Scale] = []

    def stubborn(scales: Scales) -> TimesByKind:
        asked.append(scales[LLM])
        return {LLM: Times(10.0)}

    found = match({LLM: Times(1000.0), OTHER: Times(5.0)}, stubborn)

    assert max(scale.steps for scale in asked) == 1000.0
    assert len(asked) == 8
    assert found.scales == {LLM: AS_IT_SAYS, OTHER: AS_IT_SAYS}


def test_prompts_that_no_simulation_completes_say_nothing() -> None:
    found = match({LLM: Times(70.0, 100.0)}, lambda scales: {LLM: Times(50.0 * scales[LLM].steps)})

    assert found.scales[LLM].steps == pytest.approx(1.4, rel=0.01)


def test_a_scale_comes_on_top_of_what_the_scenario_says() -> None:
    what = compiled(
        PAIR,
        "cluster.replicas[h].engine.step_scale=2",
        "cluster.replicas[d].engine.prefill_scale=0.5",
    )

    engines = {
        one.group: one.engine for one in scaled(what.cluster, {LLM: Scale(1.5, 3.0)}).replicas
    }

    assert {group: one.step_scale for group, one in engines.items()} == {"d": 1.5, "h": 3.0}
    assert {group: one.prefill_scale for group, one in engines.items()} == {"d": 1.5, "h": 3.0}


def test_engines_with_other_threads_are_told_apart() -> None:
    assert kind_of(EngineSpec(model="m", threads=4)).label == "m (4 threads)"
    assert LLM.label == "smollm2-135m"
