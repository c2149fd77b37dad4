"""How fast known models compute: measured coefficients, and where they come from."""

from __future__ import annotations

import msgspec

from anyserve.core.engine.step_time import StepTimeModel

_GIB = 1 << 30


class EngineProfile(msgspec.Struct, frozen=True, kw_only=True):
    """An engine as the model of it sees it."""

    name: str
    step_time: StepTimeModel
    context: int
    """Tokens of context that the model was trained for."""
    kv_bytes_per_token: int
    """Size of one token in the KV cache; 0 where there is none (embedding models)."""
    block_size: int
    """Tokens per KV block."""
    source: str
    """Where the numbers were measured."""

    def kv_blocks(self, kv_cache_gib: float) -> int:
        """KV blocks that fit into a cache of this size."""
        if self.kv_bytes_per_token == 0:
            return 0
        return int(kv_cache_gib * _GIB) // (self.kv_bytes_per_token * self.block_size)


SMOLLM2_CPU = EngineProfile(
    name="smollm2-135m",
    step_time=StepTimeModel(
        base_ps=28_000_000_000, prefill_ps=1_450_000_000, decode_ps=1_300_000_000
    ),
    context=8192,
    kv_bytes_per_token=2 * 30 * 3 * 64 * 4,  # keys and values, layers, heads, size, float32
    block_size=128,
    source="vLLM 0.32 CPU build, one thread of a 2-core x86 server, November 2026",
)
MINILM_CPU = EngineProfile(
    name="minilm",
    step_time=StepTimeModel(base_ps=11_000_000_000, prefill_ps=520_000_000, decode_ps=0),
    context=512,
    kv_bytes_per_token=0,
    block_size=128,
    source="vLLM 0.32 CPU build, float32, one thread of an AVX2 server core, November 2026",
)
PROFILES: dict[str, EngineProfile] = {p.name: p for p in (SMOLLM2_CPU, MINILM_CPU)}


def profile_for(name: str, *, embeds: bool) -> EngineProfile:
    """The profile of a model, or of the nearest small model where it was never measured."""
    return PROFILES.get(name, MINILM_CPU if embeds else SMOLLM2_CPU)
