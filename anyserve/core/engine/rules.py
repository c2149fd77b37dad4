"""Whose turn it is, sequence by sequence: the rules of vLLM's scheduler.

There are no prefill and decode phases: every sequence has `computed` tokens chasing its `total`.
Per step there is one budget of tokens; running sequences come first, in the order of their
admission; blocks for what is scheduled, preempting others when they run out; then waiting ones,
unless somebody was preempted, each only if it fits. A sequence whose tokens are all computed is
given one more in the same step. (vLLM 0.32: `Scheduler.schedule`.)
"""

from __future__ import annotations

from typing import Final

from anyserve.core.engine.cache import Hit, KvCache
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.pack import Pack
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.queues import WaitingQueue
from anyserve.core.engine.sequence import NOBODY, Sequence

UNBOUNDED: Final = 1 << 60
State = tuple[int, int, int, int, int, int]
"""Running, waiting, free blocks, prefix queries and hits, preemptions."""


class Rules:
    """Waiting and running sequences, their KV memory, and who may go on."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self.cache = KvCache(limits.kv_blocks, limits.block_size, caching=limits.prefix_caching)
        self.pack = Pack(limits.block_size)
        """Running sequences that a batch need not touch in each step; may stay empty."""
        self._waiting = WaitingQueue(priorities=limits.priorities)
        self.running = 0
        """Sequences in the batch."""
        self._admissions = 0
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place, preempted ones included."""
        return self._waiting.length

    def state(self) -> State:
        """The figures that an engine reports."""
        return (
            self.running,
            self._waiting.length,
            self.cache.free,
            self.prefix_queries,
            self.prefix_hits,
            self.preemptions,
        )

    def placed(self) -> list[Sequence]:
        """All that have a place in the batch, in its order. Looked for when it is asked."""
        raise NotImplementedError

    def members(self) -> list[Sequence]:
        """The sequences of the pack, in the order of the batch."""
        return [sequence for sequence in self.placed() if sequence.base is not None]

    def sequences(self) -> list[Sequence]:
        """All that wait or have a place."""
        return [*self._waiting.sequences(), *self.placed()]

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its admission."""
        self._waiting.add(sequence)

    def _drop(self, sequence: Sequence) -> None:
        """Forget a running sequence."""
        sequence.gone = True
        self._leave(sequence)
        self.cache.release(sequence)

    def _enter(self, sequence: Sequence) -> None:
        """Give a sequence a place, after all others."""
        sequence.placed = True
        self.running += 1

    def _leave(self, sequence: Sequence) -> None:
        """Take its place away."""
        sequence.placed = False
        self.running -= 1

    # --- what differs between a batch and another ----------------------------------------------

    def _wanted(self, sequence: Sequence) -> int:
        """Tokens that a running sequence has to compute."""
        return sequence.total - sequence.computed

    def _held_back(self, sequence: Sequence) -> bool:
        """Whether a waiting sequence is passed over for now."""
        del sequence
        return False

    def _preempted(self, sequence: Sequence) -> None:
        """A sequence lost its place."""

    # --- running -------------------------------------------------------------------------------

    def _scan(self, plan: StepPlan, order: list[Sequence]) -> tuple[dict[Sequence, int], int]:
        """Schedule who runs already: tokens by sequence, and the budget that is left. `order`: all
        that have a place; who loses it is taken out."""
        budget = self._limits.max_num_batched_tokens
        cap = self._chunk_cap()
        given: dict[Sequence, int] = {}
        index = 0
        while index < len(order) and budget > 0:
            sequence = order[index]
            tokens = self._wanted(sequence)
            if 0 < cap < tokens:
                tokens = cap
            tokens = min(tokens, budget)
            if tokens == 0:
                index += 1
                continue
            while self._blocks_missing(sequence, sequence.computed + tokens) > self.cache.free:
                victim = self._victim(order)
                place = order.index(victim)
                del order[place]
                if place < index:
                    index -= 1
                budget += given.pop(victim, 0)
                self._preempt(victim, plan)
                if victim is sequence:
                    break
            if not sequence.placed:
                break  # it was the last that could make room, and nobody after it may go on
            self.cache.extend(sequence, sequence.computed + tokens)
            given[sequence] = tokens
            budget -= tokens
            index += 1
        return given, budget

    def _victim(self, order: list[Sequence]) -> Sequence:
        return max(order, key=_age) if self._limits.priorities else order[-1]

    def _preempt(self, victim: Sequence, plan: StepPlan) -> None:
        self._leave(victim)
        self.cache.release(victim, returns=True)
        victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        self._preempted(victim)
        plan.preempt(victim)
        self._waiting.put_back(victim)

    def _blocks_missing(self, sequence: Sequence, tokens: int) -> int:
        held = len(sequence.blocks) + sequence.own
        return max(0, -(-tokens // self._limits.block_size) - held)

    # --- admission -----------------------------------------------------------------------------

    def _admit(self, plan: StepPlan, budget: int) -> list[tuple[Sequence, int]]:
        """Let waiting sequences in: who, and the tokens that they compute."""
        waiting, limits = self._waiting, self._limits
        admitted: list[tuple[Sequence, int]] = []
        passed_over = NOBODY
        cap = self._chunk_cap()
        while budget > 0 and waiting.length and self.running < limits.max_num_seqs:
            sequence = waiting.head()
            if self._held_back(sequence):
                waiting.pop()
                passed_over = [*passed_over, sequence]
                continue
            admission = self._admissible(sequence, budget, cap)
            if admission is None:
                break  # the head of the line blocks
            tokens, hit = admission
            waiting.pop()
            self._start(sequence, tokens, hit)
            self._enter(sequence)
            plan.admitted.append(sequence)
            admitted.append((sequence, tokens))
            budget -= tokens
        for sequence in reversed(passed_over):
            waiting.put_back(sequence)
        return admitted

    def _start(self, sequence: Sequence, tokens: int, hit: Hit) -> None:
        limits = self._limits
        if hit.blocks:
            self.cache.adopt(sequence, hit)
        computed = sequence.computed = hit.blocks * limits.block_size
        self.cache.extend(sequence, computed + tokens)
        if limits.prefix_caching and not sequence.preemptions:
            self.prefix_queries += sequence.total
            self.prefix_hits += computed
        self._admissions += 1
        sequence.order = self._admissions

    def _admissible(self, sequence: Sequence, budget: int, cap: int) -> tuple[int, Hit] | None:
        """What a waiting sequence would compute in this step; None if it has to wait."""
        limits, cache = self._limits, self.cache
        hit = cache.find(sequence)
        computed = hit.blocks * limits.block_size
        tokens = sequence.total - computed
        if 0 < cap < tokens:
            tokens = cap
        if tokens > budget:
            if not limits.chunked_prefill:
                return None
            tokens = budget
        upto = sequence.total if limits.reserve_full_sequence else computed + tokens
        needed = -(-upto // limits.block_size) - hit.blocks + hit.free
        if self.running:
            needed += limits.watermark_blocks
        return (tokens, hit) if needed <= cache.free else None

    def _chunk_cap(self) -> int:
        """Tokens of one prompt in this step at most; 0 is no bound."""
        limits = self._limits
        cap = limits.long_prefill_token_threshold
        if not cap:
            return 0
        there = self.running + self._waiting.length
        if there <= 1:
            return 0
        if limits.long_prefill_adaptive:
            return max(cap, limits.max_num_batched_tokens // there)
        return cap


def by_order(sequence: Sequence) -> int:
    """Place in the batch."""
    return sequence.order


def _age(sequence: Sequence) -> tuple[int, int]:
    return (sequence.priority, sequence.arrival)
