"""The bounds and rules of one engine, by vLLM's names where it has one."""

from __future__ import annotations

import msgspec


class EngineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine may do in a step, and by which rules."""

    max_num_seqs: int
    """Sequences in the batch at most."""
    max_num_batched_tokens: int
    """Tokens computed in a step at most; not less than `max_num_seqs`."""
    kv_blocks: int
    """Blocks of the KV cache, vLLM's null block among them. 0: no KV cache, nothing to run out
    of (encoders)."""
    block_size: int
    """Tokens per block."""
    priorities: bool = True
    """Policy `priority`: order and preemption by (priority, arrival). Else first come, first
    served, and who was admitted last is preempted."""
    prefix_caching: bool = True
    """Whether computed blocks are found again (`enable_prefix_caching`)."""
    chunked_prefill: bool = True
    """Whether a prompt may be computed in parts; encoder models cannot."""
    long_prefill_token_threshold: int = 0
    """Tokens of one prompt per step at most while others are there; 0 is no such bound."""
    long_prefill_adaptive: bool = False
    """Whether that bound is never under a fair share of the step's tokens."""
    reserve_full_sequence: bool = True
    """Whether a sequence is admitted only if all its tokens fit (`scheduler_reserve_full_isl`)."""
    watermark: float = 0.0
    """Share of the blocks that an admission leaves free while others run."""
    async_scheduling: bool = False
    """Whether a step is planned before the tokens of the step before it are known."""

    def without_cache(self) -> EngineLimits:
        """The same without a KV cache."""
        return msgspec.structs.replace(self, kv_blocks=0)

    @property
    def watermark_blocks(self) -> int:
        """The watermark in blocks."""
        return int(self.watermark * self.kv_blocks)
