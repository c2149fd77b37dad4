"""From what a scenario says of an engine, and its profile, to the bounds of the model of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.profile import EngineProfile
from anyserve.core.spec import EngineSpec

CPU_BATCHED_TOKENS: Final = 256
"""Tokens per step as the CPU build of vLLM is run here."""
_DEFAULT_CONTEXT: Final = 2048


class Sizes(NamedTuple):
    """Bounds of an engine."""

    limits: EngineLimits
    context: int
    """Prompt plus output tokens of one sequence at most (`max_model_len`)."""

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit into the KV cache; 0 where there is none."""
        return max(0, self.limits.kv_blocks - 1) * self.limits.block_size

    @property
    def shortfall(self) -> str:
        """Why a sequence of full length could never be served; empty: it could."""
        if not self.limits.kv_blocks or self.kv_tokens >= self.context:
            return ""
        return f"the KV cache holds {self.kv_tokens} tokens, and the context has {self.context}"


def engine_sizes(spec: EngineSpec, profile: EngineProfile) -> Sizes:
    """The bounds of a `spec` engine that computes like `profile`.

    `spec.options` are vLLM's arguments; those that the scheduler knows count here too.
    """
    options = spec.options
    embeds = spec.task == "embed"
    context = spec.max_model_len or min(profile.context, _DEFAULT_CONTEXT)
    tokens = spec.max_num_batched_tokens or profile.max_num_batched_tokens or CPU_BATCHED_TOKENS
    block_size = _whole(options, "block_size") or profile.block_size
    blocks = 0 if embeds else profile.kv_blocks(spec.kv_cache_gib, block_size)
    limits = EngineLimits(
        max_num_seqs=spec.max_num_seqs,
        # An encoder computes a text as a whole: the step must hold the longest one.
        max_num_batched_tokens=max(tokens, context if embeds else spec.max_num_seqs),
        kv_blocks=_whole(options, "num_gpu_blocks_override") or blocks,
        block_size=block_size,
        priorities=options.get("scheduling_policy", "priority") == "priority",
        prefix_caching=not embeds and bool(options.get("enable_prefix_caching", True)),
        chunked_prefill=not embeds and bool(options.get("enable_chunked_prefill", True)),
        long_prefill_token_threshold=_whole(options, "long_prefill_token_threshold"),
        long_prefill_adaptive=bool(options.get("long_prefill_token_threshold_adaptive")),
        reserve_full_sequence=bool(options.get("scheduler_reserve_full_isl", True)),
        watermark=float(options.get("watermark", 0.0)),
        async_scheduling=bool(options.get("async_scheduling", profile.async_scheduling)),
    )
    return Sizes(limits, context)


def _whole(options: Mapping[str, Any], name: str) -> int:
    return int(options.get(name) or 0)
