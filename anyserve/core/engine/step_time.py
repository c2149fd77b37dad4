"""How long one engine step takes, as a function of what is in it. Integers only.

    t = a + b*P + c*D + d*K + e*A

P new prefill tokens, D sequences that decode, K the context tokens that those decodes read,
A = sum of p*(s + p/2) over the prefill chunks of p tokens on top of s computed ones. Times are
whole nanoseconds and coefficients whole picoseconds, so a sum over many equal steps is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

_PS_PER_NS = 1000


class Chunk(NamedTuple):
    """Work of one request in a step."""

    computed: int
    """Tokens of its context that were computed before."""
    tokens: int
    """Tokens to compute now; a decode computes one."""
    decode: bool
    """Whether this is a decode, not (a part of) a prefill."""


class StepTimeModel(msgspec.Struct, frozen=True, kw_only=True):
    """Coefficients of the step time, in picoseconds per unit."""

    base_ps: int
    """a: per step."""
    prefill_ps: int
    """b: per prefill token."""
    decode_ps: int
    """c: per decoding sequence."""
    context_ps: int = 0
    """d: per context token that a decode reads."""
    attention_ps: int = 0
    """e: per pair of prefill token and token before it."""

    def step_ns(self, chunks: Iterable[Chunk]) -> int:
        """Duration of a step that does `chunks`, in nanoseconds (rounded up)."""
        prefill = decode = context = twice_attention = 0
        for computed, tokens, is_decode in chunks:
            if is_decode:
                decode += 1
                context += computed + 1
            else:
                prefill += tokens
                twice_attention += tokens * (2 * computed + tokens)
        picoseconds = (
            self.base_ps
            + self.prefill_ps * prefill
            + self.decode_ps * decode
            + self.context_ps * context
            + self.attention_ps * twice_attention // 2
        )
        return -(-picoseconds // _PS_PER_NS)
