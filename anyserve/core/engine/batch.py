"""A continuous-batching scheduler with vLLM's rules, pure: what runs in which step.

There are no prefill and decode phases: every sequence has `computed` tokens chasing its `total`.
Per step one token budget; running sequences first, in admission order; blocks for what is
scheduled, preempting the last in rank when they run out; then waiting ones, unless somebody was
preempted, each only if its whole sequence fits. A sequence whose tokens are all computed samples
one token in the same step. Order and rank are (priority, arrival), as in vLLM's `priority` policy,
which is first come first served among equals.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from operator import attrgetter

from anyserve.core.engine.kv import KvBlocks
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.step_time import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of one engine."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_blocks: int
    """0: no KV cache, nothing to run out of."""
    block_size: int
    chunked_prefill: bool = True
    """Whether a prompt may be computed in parts; encoder models cannot."""


@dataclass(slots=True, kw_only=True)
class StepPlan:
    """What one step computes."""

    work: dict[Sequence, Chunk] = field(default_factory=dict)
    admitted: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)


class BatchScheduler:
    """Waiting and running sequences of one engine, and its KV memory."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._kv = KvBlocks(limits.kv_blocks, limits.block_size)
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self.preemptions = 0

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place, preempted ones included."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use."""
        return self._kv.usage

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its admission."""
        insort(self._waiting, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        for queue in (self._waiting, self._running):
            if sequence in queue:
                queue.remove(sequence)
        self._kv.release(sequence)

    def schedule(self) -> StepPlan:
        """Choose the next step and count its tokens as computed."""
        plan = StepPlan()
        budget = self._schedule_running(plan, self._limits.max_num_batched_tokens)
        if not plan.preempted:
            self._admit(plan, budget)
        for sequence, chunk in plan.work.items():
            sequence.computed += chunk.tokens
        return plan

    def commit(self, plan: StepPlan) -> list[Sequence]:
        """End the step: return the sequences that got a token (or were read to their end)."""
        caught_up = [seq for seq in plan.work if seq.computed == seq.total]
        for sequence in caught_up:
            if sequence.room:
                sequence.generated += 1
            if sequence.finished or sequence.generated >= sequence.room:
                self.remove(sequence)
        return caught_up

    def _schedule_running(self, plan: StepPlan, budget: int) -> int:
        index = 0
        while index < len(self._running) and budget > 0:
            sequence = self._running[index]
            tokens = min(sequence.total - sequence.computed, budget)
            while not self._kv.grow(sequence, sequence.computed + tokens):
                victim = max(self._running, key=_rank)
                if victim in plan.work:  # scheduled earlier in this step: give its budget back
                    budget += plan.work.pop(victim).tokens
                    index -= 1
                self._preempt(victim, plan)
                if victim is sequence:
                    return budget
            plan.work[sequence] = _chunk(sequence, tokens)
            budget -= tokens
            index += 1
        return budget

    def _admit(self, plan: StepPlan, budget: int) -> None:
        while self._waiting and budget > 0 and len(self._running) < self._limits.max_num_seqs:
            sequence = self._waiting[0]
            tokens = min(sequence.total, budget)
            whole = tokens == sequence.total
            if not (whole or self._limits.chunked_prefill) or not self._kv.fits(sequence.total):
                return  # the head of the line blocks
            self._kv.grow(sequence, tokens)
            self._running.append(self._waiting.pop(0))
            plan.admitted.append(sequence)
            plan.work[sequence] = _chunk(sequence, tokens)
            budget -= tokens

    def _preempt(self, victim: Sequence, plan: StepPlan) -> None:
        self._running.remove(victim)
        self._kv.release(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        plan.preempted.append(victim)
        self.add(victim)


_rank = attrgetter("rank")


def _chunk(sequence: Sequence, tokens: int) -> Chunk:
    return Chunk(sequence.computed, tokens, decode=sequence.computed >= sequence.prompt)
