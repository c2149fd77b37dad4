from __future__ import annotations

import pytest

from anyserve.core.engine.profile import EngineProfile
from anyserve.core.engine.step_time import StepTimeModel
from anyserve.errors import StartError
from anyserve.runtime.engines.base import EngineConfig, EngineKind, EngineRequest, Sampling
from anyserve.runtime.engines.model import ModelEngine

PROFILE = EngineProfile(
    name="test",
    step_time=StepTimeModel(
        base_ps=10_000_000_000, prefill_ps=1_000_000_000, decode_ps=2_000_000_000
    ),
    context=64,
    kv_bytes_per_token=1 << 20,
    block_size=16,
    source="made up",
)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)


def engine_with(clock: Clock, **settings: object) -> ModelEngine:
    config = EngineConfig(kind=EngineKind.MODEL, profile=PROFILE, **settings)  # type: ignore[arg-type]
    return ModelEngine(config, clock.sleep, clock)


def test_a_step_takes_the_time_that_the_profile_says() -> None:
    clock = Clock()
    engine = engine_with(clock)
    engine.start(lambda *_: None)
    engine.submit(EngineRequest(key="a", prompt_ids=[1] * 20, sampling=Sampling(max_tokens=2)))
    engine.submit(EngineRequest(key="b", prompt_ids=[1] * 10, sampling=Sampling(max_tokens=2)))

    engine.step()
    engine.step()

    assert clock.slept == pytest.approx([0.010 + 0.030, 0.010 + 2 * 0.002])
    assert not engine.has_work


def test_a_context_that_does_not_fit_into_the_cache_is_refused_at_start() -> None:
    engine = engine_with(Clock(), max_model_len=64, kv_cache_gib=0.0625)  # 64 MiB: 64 tokens

    with pytest.raises(StartError, match="48 tokens"):  # one block is reserved
        engine.start(lambda *_: None)


def test_waiting_and_memory_show_in_the_stats() -> None:
    engine = engine_with(Clock(), max_num_seqs=1)
    engine.start(lambda *_: None)
    for key in ("a", "b"):
        engine.submit(EngineRequest(key=key, prompt_ids=[1] * 16))

    stats = engine.step().stats

    assert (stats.running, stats.waiting) == (1, 1)
    assert stats.kv_usage > 0


def test_a_prompt_that_begins_like_an_earlier_one_is_computed_from_there_on() -> None:
    clock = Clock()
    engine = engine_with(clock)
    engine.start(lambda *_: None)
    prompt = list(range(100, 140))  # two and a half blocks
    engine.submit(EngineRequest(key="a", prompt_ids=prompt, sampling=Sampling(max_tokens=1)))
    engine.step()

    engine.submit(EngineRequest(key="b", prompt_ids=[*prompt, 7], sampling=Sampling(max_tokens=1)))
    output = engine.step()

    assert clock.slept == pytest.approx([0.010 + 0.040, 0.010 + 0.009])
    assert [delta.cached_tokens for delta in output.deltas] == [32]
    assert (output.stats.prefix_queries, output.stats.prefix_hits) == (81, 32)


def test_choices_of_one_request_share_its_prompt() -> None:
    clock = Clock()
    engine = engine_with(clock)
    engine.start(lambda *_: None)
    request = EngineRequest(key="a", prompt_ids=[1] * 20, sampling=Sampling(max_tokens=2, n=2))
    engine.submit(request)

    first, second = engine.step(), engine.step()

    assert clock.slept[0] == pytest.approx(0.010 + 0.020 + 0.004)  # a block of 16 is found
    assert [delta.choice for delta in first.deltas] == [0, 1]
    assert [delta.first_index for delta in second.deltas] == [1, 1]
    assert [delta.done for delta in second.deltas] == [False, True]


def test_a_cancelled_request_leaves_at_once() -> None:
    engine = engine_with(Clock())
    engine.start(lambda *_: None)
    for key in ("a", "b"):
        engine.submit(EngineRequest(key=key, prompt_ids=[1] * 16, sampling=Sampling(max_tokens=9)))
    engine.step()

    engine.cancel("a")

    assert engine.stats().running == 1
    assert {delta.key for delta in engine.step().deltas} == {"b"}
    engine.cancel("b")
    assert not engine.has_work
    assert engine.stats().kv_usage == 0.0
