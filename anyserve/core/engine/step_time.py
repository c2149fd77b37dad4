"""How long one engine step takes, as a function of what is in it. Integers only.

    t = a + b*P + c*D + d*K + e*A

P new prefill tokens, D sequences that decode, K the context tokens that those decodes read, A = sum
of p*(s + p/2) over the prefill chunks of p tokens on top of s computed ones. Further terms, where
the fit chose them (`fit.py`): a cost per prefill chunk, a floor under b*P + c*D (a GPU that reads
its weights in that time anyway), a piecewise-linear table over P + D, and D rounded up to the batch
sizes that CUDA graphs were captured for.

Coefficients are whole picoseconds. Of all terms only d*K changes while the same sequences decode,
by d*D per step, so that a run of steps is an arithmetic series and its sum is exact.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import msgspec

from anyserve.core.engine.formula import Formula


class StepWork(NamedTuple):
    """What one step computes."""

    prefill_tokens: int = 0
    """P: tokens of prompts (and of what is computed again after a preemption)."""
    prefills: int = 0
    """N: sequences that those tokens belong to."""
    decodes: int = 0
    """D: sequences that compute one token each to sample the next."""
    context: int = 0
    """K: tokens that the decodes read, their own new one included."""
    attention: int = 0
    """2*A: the sum of p * (2*s + p) over the prefill chunks."""


class StepTime(Protocol):
    """Any model of step time. Users name their own as `pkg.mod:Class`, made without arguments."""

    def step_ps(self, work: StepWork) -> int:
        """Duration of a step in picoseconds, at least 1. Must depend on `work` alone."""
        ...


class StepTimeModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The formula's coefficients, in picoseconds per unit. A `StepTime`."""

    base_ps: int
    """a: per step."""
    prefill_ps: int = 0
    """b: per prefill token."""
    decode_ps: int = 0
    """c: per decoding sequence."""
    context_ps: int = 0
    """d: per context token that a decode reads."""
    attention_ps: int = 0
    """e: per pair of prefill token and token before it."""
    prompt_ps: int = 0
    """Per prefill chunk."""
    floor_ps: int = 0
    """Least time of the prefill and decode terms together (the max form)."""
    table: tuple[tuple[int, int], ...] = ()
    """(P + D, ps), ascending: added, linear between the points and beyond the last two."""
    graph_sizes: tuple[int, ...] = ()
    """Batch sizes, ascending, to which D is rounded up in steps without prefill."""

    def scaled(self, scale: float, prefill_scale: float = 1.0) -> StepTimeModel:
        """That of an engine whose steps take `scale` times as long, and what prompts add to them
        `prefill_scale` times as long once more.

        Steps that only decode wait for memory most of the time, prompts for arithmetic; machines
        differ in the two. What a table grows by over its first point counts as arithmetic.
        """
        prompts = scale * prefill_scale
        first = self.table[0][1] if self.table else 0
        return msgspec.structs.replace(
            self,
            base_ps=round(self.base_ps * scale),
            prefill_ps=round(self.prefill_ps * prompts),
            decode_ps=round(self.decode_ps * scale),
            context_ps=round(self.context_ps * scale),
            attention_ps=round(self.attention_ps * prompts),
            prompt_ps=round(self.prompt_ps * prompts),
            floor_ps=round(self.floor_ps * scale),
            table=tuple(
                (tokens, round(first * scale + (ps - first) * prompts)) for tokens, ps in self.table
            ),
        )

    def formula(self) -> Formula:
        """The same, ready to be asked often: one for all that ask, as many engines share it."""
        return _formula(self)

    def step_ps(self, work: StepWork) -> int:
        """Duration of a step in picoseconds."""
        return (
            self.formula().fixed_ps(work.prefill_tokens, work.prefills, work.decodes)
            + self.context_ps * work.context
            + self.attention_ps * work.attention // 2
        )


@lru_cache
def _formula(model: StepTimeModel) -> Formula:
    return Formula(
        base_ps=model.base_ps,
        prefill_ps=model.prefill_ps,
        decode_ps=model.decode_ps,
        context_ps=model.context_ps,
        attention_ps=model.attention_ps,
        prompt_ps=model.prompt_ps,
        floor_ps=model.floor_ps,
        table=model.table,
        graph_sizes=model.graph_sizes,
    )


class ScaledStepTime:
    """Another model of step time, whose steps take `scale` times as long, and what prompts add to
    them `prefill_scale` times as long once more. A `StepTime`."""

    def __init__(self, step_time: StepTime, scale: float, prefill_scale: float) -> None:
        self._step_time = step_time
        self._scale = scale
        self._prefill_scale = prefill_scale

    def step_ps(self, work: StepWork) -> int:
        """Duration of a step in picoseconds."""
        step_ps: float = self._step_time.step_ps(work)
        if work.prefill_tokens and self._prefill_scale != 1.0:
            rest = StepWork(decodes=work.decodes, context=work.context)
            rest_ps = self._step_time.step_ps(rest)
            step_ps = rest_ps + max(0, step_ps - rest_ps) * self._prefill_scale
        return max(1, round(step_ps * self._scale))


def scaled_step_time(step_time: StepTime, scale: float, prefill_scale: float = 1.0) -> StepTime:
    """This model of step time, with steps that take `scale` times as long, and what prompts add to
    them `prefill_scale` times as long once more."""
    if scale == prefill_scale == 1.0:
        return step_time
    if isinstance(step_time, StepTimeModel):
        return step_time.scaled(scale, prefill_scale)
    return ScaledStepTime(step_time, scale, prefill_scale)
