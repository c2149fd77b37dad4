from __future__ import annotations

import pytest

from anyserve.core.engine.profiles import MINILM_CPU, SMOLLM2_CPU, profile_for
from anyserve.core.engine.step_time import Chunk, StepTimeModel

MODEL = StepTimeModel(
    base_ps=1_000_000,
    prefill_ps=10_000,
    decode_ps=5_000,
    context_ps=100,
    attention_ps=20,
)


def test_an_empty_step_costs_the_base() -> None:
    assert MODEL.step_ns([]) == 1_000


def test_prefill_costs_tokens_and_attention() -> None:
    # 1,000,000 + 10,000 * 8 + 20 * 8 * (4 + 8/2) = 1,081,280 ps
    assert MODEL.step_ns([Chunk(4, 8, decode=False)]) == 1_082


def test_decode_costs_sequences_and_context() -> None:
    # 1,000,000 + 5,000 * 2 + 100 * (11 + 21) = 1,013,200 ps
    assert MODEL.step_ns([Chunk(10, 1, decode=True), Chunk(20, 1, decode=True)]) == 1_014


def test_a_prefill_in_two_chunks_reads_the_same_pairs_as_in_one() -> None:
    pure = StepTimeModel(base_ps=0, prefill_ps=0, decode_ps=0, attention_ps=2_000)

    whole = pure.step_ns([Chunk(0, 100, decode=False)])
    halves = pure.step_ns([Chunk(0, 50, decode=False)]) + pure.step_ns(
        [Chunk(50, 50, decode=False)]
    )

    assert whole == halves


def test_durations_are_whole_nanoseconds_rounded_up() -> None:
    tiny = StepTimeModel(base_ps=1, prefill_ps=0, decode_ps=0)

    assert tiny.step_ns([]) == 1


@pytest.mark.parametrize(
    ("name", "embeds", "expected"),
    [
        ("smollm2-135m", False, SMOLLM2_CPU),
        ("minilm", True, MINILM_CPU),
        ("never-measured", False, SMOLLM2_CPU),
        ("never-measured", True, MINILM_CPU),
    ],
)
def test_profiles_are_found_by_name_or_by_task(
    name: str, *, embeds: bool, expected: object
) -> None:
    assert profile_for(name, embeds=embeds) is expected


def test_a_cache_holds_whole_blocks() -> None:
    block_bytes = SMOLLM2_CPU.kv_bytes_per_token * SMOLLM2_CPU.block_size

    assert SMOLLM2_CPU.kv_blocks(1.0) == (1 << 30) // block_bytes
    assert MINILM_CPU.kv_blocks(1.0) == 0
