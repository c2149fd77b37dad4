from __future__ import annotations

import msgspec
import pytest

from anyserve.core.engine.profile import EngineProfile, MeasuredRanges, Range
from anyserve.core.engine.range_watch import RangeWatch
from anyserve.core.engine.sizing import engine_sizes
from anyserve.core.engine.step_time import StepTimeModel
from anyserve.core.spec import EngineSpec

PROFILE = EngineProfile(
    name="test",
    step_time=StepTimeModel(base_ps=1),
    context=1000,
    kv_bytes_per_token=1 << 20,
    block_size=16,
    source="made up",
    contention=((2, 1.2), (4, 3.0)),
    machine={"cores": "2"},
)


@pytest.mark.parametrize(
    ("busy", "cores", "pace"),
    [
        (1, 2, 1000),
        (2, 2, 1200),
        (3, 2, 2100),
        (4, 2, 3000),
        (8, 2, 6000),
        (2, 4, 1000),
        (8, 8, 1200),
        (16, 4, 6000),
    ],
)
def test_engines_that_share_cores_are_slower(busy: int, cores: int, pace: int) -> None:
    assert PROFILE.pace(busy, cores) == pace


def test_what_goes_beyond_the_measured_is_told_with_its_most() -> None:
    ranges = MeasuredRanges(prefill_tokens=Range(0, 256), decodes=Range(0, 16))
    watch = RangeWatch(ranges)
    watch.look(256, 16, 1 << 40)
    assert watch.said() == []

    watch.look(300, 17, 0)
    watch.look(400, 1, 0)

    assert watch.said() == [
        "decodes up to 17, measured up to 16",
        "prefill tokens up to 400, measured up to 256",
    ]


def test_a_cache_holds_whole_blocks_or_what_the_profile_says() -> None:
    spec = EngineSpec(kv_cache_gib=1.0, max_model_len=512)

    assert engine_sizes(spec, PROFILE).limits.kv_blocks == 64
    assert engine_sizes(spec, PROFILE).kv_tokens == 63 * 16


def test_an_encoders_step_holds_its_longest_text() -> None:
    sizes = engine_sizes(EngineSpec(task="embed", max_model_len=512), PROFILE)

    assert sizes.limits.max_num_batched_tokens == 512
    assert (sizes.limits.kv_blocks, sizes.limits.chunked_prefill) == (0, False)


def test_the_engines_own_options_count() -> None:
    options = {"enable_prefix_caching": False, "scheduling_policy": "fcfs", "block_size": 32}
    limits = engine_sizes(EngineSpec(options=options), PROFILE).limits

    assert (limits.prefix_caching, limits.priorities, limits.block_size) == (False, False, 32)


def test_an_engine_plans_ahead_where_the_measured_one_did_unless_it_is_told_otherwise() -> None:
    ahead = msgspec.structs.replace(PROFILE, async_scheduling=True)
    told = EngineSpec(options={"async_scheduling": False})

    assert not engine_sizes(EngineSpec(), PROFILE).limits.async_scheduling
    assert engine_sizes(EngineSpec(), ahead).limits.async_scheduling
    assert not engine_sizes(told, ahead).limits.async_scheduling


def test_a_scaled_profile_computes_longer_and_loads_as_before() -> None:
    profile = msgspec.structs.replace(
        PROFILE, intake_us=10.0, cooling=((100, 50.0),), cold_us=4.0, shape_us=2.0, load_s=3.0
    )

    scaled = profile.scaled(2.0)

    assert scaled.step_time.base_ps == 2
    assert (scaled.intake_us, scaled.cooling, scaled.cold_us, scaled.shape_us, scaled.load_s) == (
        20.0, ((100, 100.0),), 8.0, 4.0, 3.0,
    )  # fmt: skip
    assert profile.scaled(1.0) is profile
    assert profile.scaled(2.0, 3.0).shape_us == 12.0  # it is arithmetic of prompts
    assert profile.scaled(2.0, 3.0).intake_us == 20.0
