from __future__ import annotations

import itertools

import msgspec
import pytest

from anyserve.core.engine.fit import Sample, fit_step_time
from anyserve.core.engine.profile import EngineProfile
from anyserve.core.engine.step_time import StepTimeModel
from anyserve.runtime.calibrate.messages import CalibrationError
from anyserve.runtime.calibrate.meter import Meter
from anyserve.runtime.calibrate.waves import Bounds, Wave, designed, random_waves, rested
from anyserve.runtime.engines.base import (
    EngineConfig,
    EngineInfo,
    EngineKind,
    EngineStats,
    StepOutput,
    Task,
)
from anyserve.runtime.engines.model import ModelEngine

TRUTH = StepTimeModel(
    base_ps=20_000_000_000,
    prefill_ps=400_000_000,
    decode_ps=900_000_000,
    context_ps=5_000_000,
    attention_ps=200_000,
)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def engine_and_meter(
    task: Task, device: str = "", *, ahead: bool = False
) -> tuple[Meter, EngineInfo]:
    clock = Clock()
    embeds = task is Task.EMBED
    profile = EngineProfile(
        name="truth", step_time=TRUTH, context=2048, block_size=16, source="made up",
        kv_bytes_per_token=0 if embeds else 20_000, async_scheduling=ahead,
    )  # fmt: skip
    config = EngineConfig(kind=EngineKind.MODEL, profile=profile, task=task, max_model_len=1024)
    engine = ModelEngine(config, clock.sleep, clock)
    info = engine.start(lambda *_: None)
    info = msgspec.structs.replace(info, device=device or info.device)
    meter = Meter(
        engine, info, embeds=embeds, clock_ns=clock, cpu_ns=clock,
        sleep=clock.sleep, send=lambda _: clock.sleep(0.0),
    )  # fmt: skip
    return meter, info


@pytest.mark.parametrize(
    ("task", "ahead"), [(Task.GENERATE, False), (Task.GENERATE, True), (Task.EMBED, False)]
)
def test_an_engine_whose_truth_is_known_is_found_out(task: Task, ahead: bool) -> None:
    meter, info = engine_and_meter(task, ahead=ahead)
    assert info.async_scheduling == ahead
    bounds = Bounds.of(info, embeds=task is Task.EMBED)
    waves = [*designed(bounds), *itertools.islice(random_waves(bounds, seed=1), 12)]
    steps = [step for wave in waves for step in meter.play(wave)]

    fitted = fit_step_time([Sample(one.work, 1000 * one.wall_ns, one.held_out) for one in steps])

    assert fitted.quality.median_error < 0.001
    assert fitted.step_time.prefill_ps == pytest.approx(TRUTH.prefill_ps, rel=0.01)
    assert fitted.step_time.attention_ps == pytest.approx(TRUTH.attention_ps, rel=0.02)
    if task is Task.GENERATE:
        assert fitted.step_time.decode_ps == pytest.approx(TRUTH.decode_ps, rel=0.01)
        assert fitted.step_time.context_ps == pytest.approx(TRUTH.context_ps, rel=0.01)


def test_waves_reach_the_bounds_of_the_engine() -> None:
    bounds = Bounds(seqs=16, tokens=256, context=1024, kv_tokens=20_000, embeds=False)
    asks = [ask for wave in designed(bounds) for ask in wave.asks]

    assert max(len(wave.asks) for wave in designed(bounds)) >= 16
    assert max(ask.prompt + ask.output for ask in asks) > 900
    assert all(ask.prompt + ask.output <= 1024 for ask in asks)


def test_steps_after_a_rest_and_with_a_new_number_of_tokens_are_told_apart() -> None:
    meter, info = engine_and_meter(Task.GENERATE, device="cpu")
    waves = rested(Bounds.of(info, embeds=False))
    steps = [step for wave in waves for step in meter.play(wave)]

    assert [step.rest_ms for step in steps[::2]] == [wave.rest_ms for wave in waves]
    assert {wave.rest_ms for wave in waves} == {100, 300, 1000}
    assert not any(step.rest_ms for step in steps[1::2])
    assert [step.new_shape for step in steps[:6]] == [True, False] * 3
    sizes = {wave.asks[0].prompt for wave in waves}
    assert sum(step.new_shape for step in steps) == len(sizes - {info.max_num_batched_tokens})


def test_waves_are_the_same_for_a_seed_and_half_of_the_random_ones_are_held_out() -> None:
    bounds = Bounds(seqs=4, tokens=64, context=256, kv_tokens=4000, embeds=False)
    first = list(itertools.islice(random_waves(bounds, 7), 10))

    assert first == list(itertools.islice(random_waves(bounds, 7), 10))
    assert first != list(itertools.islice(random_waves(bounds, 8), 10))
    assert sum(wave.held_out for wave in first) == 5


def test_an_engine_that_schedules_otherwise_is_not_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meter, info = engine_and_meter(Task.GENERATE)
    bounds = Bounds.of(info, embeds=False)
    wave: Wave = designed(bounds)[3]

    def step(engine: ModelEngine, original: object = ModelEngine.step) -> StepOutput:
        output: StepOutput = original(engine)  # type: ignore[operator]
        return StepOutput(output.deltas, EngineStats(running=99))

    monkeypatch.setattr(ModelEngine, "step", step)

    with pytest.raises(CalibrationError, match="99 running"):
        meter.play(wave)
