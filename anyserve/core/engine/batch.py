"""What runs in which step: vLLM's continuous batching, one decision at a time.

There are no prefill and decode phases: every sequence has `computed` tokens chasing its `total`.
Per step there is one budget of tokens; running sequences come first, in the order of their
admission; blocks for what is scheduled, preempting others when they run out; then waiting ones,
unless somebody was preempted, each only if it fits. A sequence whose tokens are all computed is
given one more in the same step. (vLLM 0.32: `Scheduler.schedule` and `update_from_output`.)

Sequences that compute one token per step are not touched in each step: they share a `tick`, and
what they need is read from sums over them (`Pack`). Where a rule has to look at them one by one
(blocks or budget run out), they are taken out of the pack first; the decisions are the same.
"""

from __future__ import annotations

from typing import Final

from anyserve.core.engine.cache import Hit, KvCache
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.pack import Pack
from anyserve.core.engine.queues import WaitingQueue
from anyserve.core.engine.sequence import Sequence

ONE_BY_ONE: Final = 1
UNBOUNDED: Final = 1 << 60


class StepPlan:
    """What the next step computes, or the next `steps` ones if only the pack decodes in them."""

    __slots__ = (
        "admitted",
        "attention",
        "decodes",
        "packed",
        "preempted",
        "prefill_tokens",
        "prefills",
        "reserved",
        "steps",
    )  # fmt: skip

    def __init__(self) -> None:
        self.steps = 1
        self.packed = False
        """Whether the pack takes part, as a whole."""
        self.decodes: list[Sequence] = []
        """Those that decode outside the pack."""
        self.prefills: list[tuple[Sequence, int]] = []
        """(sequence, tokens) of prompts, and of what a preempted sequence computes again."""
        self.prefill_tokens = 0
        self.attention = 0
        """Sum of p * (2 * s + p) over chunks of p tokens after s computed ones: twice the pairs of
        tokens that attend to each other."""
        self.admitted: list[Sequence] = []
        self.preempted: list[Sequence] = []
        self.reserved = 0
        """Blocks that the pack was given for its first step."""

    def samples(self, sequence: Sequence) -> bool:
        """Whether one outside the pack is given a token at the end."""
        if sequence in self.decodes:
            return True
        return sequence.computed == sequence.total and any(
            sequence is one for one, _ in self.prefills
        )

    def chunk(self, sequence: Sequence, tokens: int) -> None:
        """Add a part of a prompt, before it is counted as computed."""
        self.prefills.append((sequence, tokens))
        self.prefill_tokens += tokens
        self.attention += tokens * (2 * sequence.computed + tokens)


class Batch:
    """Waiting and running sequences of one engine, and its KV memory. Decides step by step."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self.cache = KvCache(limits.kv_blocks, limits.block_size, caching=limits.prefix_caching)
        self.pack = Pack(limits.block_size)
        self._waiting = WaitingQueue(priorities=limits.priorities)
        self._running: dict[Sequence, None] = {}
        self._prefilling: list[Sequence] = []
        """Running, and not in the pack; in the order of the batch."""
        self._keyed: set[Sequence] = set()
        """Members of the pack that fill blocks others could find."""
        self._run = StepPlan()
        """The plan of steps in which only the pack decodes; there is one at a time."""
        self._run.packed = True
        self._admissions = 0
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place, preempted ones included."""
        return self._waiting.length

    def state(self) -> tuple[int, int, int, int, int, int]:
        """Running, waiting, free blocks, prefix queries and hits, preemptions."""
        return (
            len(self._running),
            self._waiting.length,
            self.cache.free,
            self.prefix_queries,
            self.prefix_hits,
            self.preemptions,
        )

    def members(self) -> list[Sequence]:
        """The sequences of the pack, in the order of the batch."""
        return [sequence for sequence in self._running if sequence.base is not None]

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its admission."""
        self._waiting.add(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence.gone:
            return
        if sequence in self._running:
            if sequence.base is None:
                self._prefilling.remove(sequence)
            self._leave_pack(sequence)
            self._drop(sequence)
        else:
            sequence.gone = True
            self._waiting.discard(sequence)

    # --- steps ---------------------------------------------------------------------------------

    def plan(self, most: int = ONE_BY_ONE) -> StepPlan:
        """Decide what comes next: one step, or as many as only the pack decodes in, with nothing
        else to decide, but not more than `most`. Their tokens count as computed by `commit`, those
        of prompts from now on."""
        pack = self.pack
        if pack.size and not self._prefilling and not self._admits():
            plan = self._run
            plan.steps = self._run_length(most, self.cache.free)
            plan.reserved = 0
            if plan.steps:
                return plan
        plan = StepPlan()
        budget = self._schedule_running(plan)
        if self._waiting.length and budget > 0 and not plan.preempted:
            self._admit(plan, budget)
        if plan.prefills or plan.decodes:
            for sequence, tokens in plan.prefills:
                sequence.computed += tokens
            for sequence in plan.decodes:
                sequence.computed += 1
        elif plan.packed and most > 1 and not self._keyed:
            # Nobody could be admitted. So it stays while only the pack decodes: blocks become
            # fewer, and a cached block that is given out is one to compute more.
            plan.steps = self._run_length(most, self.cache.free + plan.reserved)
        return plan

    def commit(self, plan: StepPlan) -> tuple[list[Sequence], list[Sequence]]:
        """End the planned steps: return whose prompt is now complete, and who is complete."""
        pack = self.pack
        ended: list[Sequence] = []
        if plan.packed:
            steps = plan.steps
            if steps > 1 or plan is self._run:
                self.cache.take(pack.blocks_for(steps) - plan.reserved)
            ended = pack.advance(steps)
            for sequence in ended:
                self._settle(sequence)
        sampled = []
        if plan.prefills or plan.decodes:
            sampled = [
                one for one, _ in plan.prefills if one.computed == one.prompt + one.generated
            ]
            for sequence in plan.decodes:
                self._sample(sequence, ended)
            for sequence in sampled:
                self._sample(sequence, ended)
            self._sort_prefilling(ended)
        if ended:
            if len(ended) > 1:
                ended.sort(key=_order)
            for sequence in ended:
                self._drop(sequence)
        return sampled, ended

    def _admits(self) -> bool:
        """Whether somebody waits and the batch has a place."""
        limits = self._limits
        return (
            self._waiting.length > 0
            and len(self._running) < limits.max_num_seqs
            and self.pack.size < limits.max_num_batched_tokens
        )

    def _run_length(self, most: int, free: int) -> int:
        steps = self.pack.until_end()
        return self.pack.affordable(min(steps, most), free)

    def _sort_prefilling(self, ended: list[Sequence]) -> None:
        """Keep who is still at its prompt; who only had to wait for its turn joins the pack."""
        prefilling = [one for one in self._prefilling if one.base is None and one not in ended]
        self._prefilling = []
        for sequence in prefilling:
            if sequence.generated and sequence.computed == sequence.total - 1:
                self._join(sequence)
            else:
                self._prefilling.append(sequence)

    def _sample(self, sequence: Sequence, ended: list[Sequence]) -> None:
        if sequence.room:
            sequence.generated += 1
        if sequence.generated >= sequence.room:
            ended.append(sequence)
        else:
            self._join(sequence)

    def _join(self, sequence: Sequence) -> None:
        self.pack.join(sequence)
        if len(sequence.keys) > sequence.cached and self._limits.prefix_caching:
            self._keyed.add(sequence)

    def _schedule_running(self, plan: StepPlan) -> int:
        """Schedule who runs already; return the tokens that are left."""
        budget = self._limits.max_num_batched_tokens - self.pack.size
        chunks = self._chunks(budget)
        if chunks is None:
            return self._scan(plan)
        blocks = self.pack.blocks_next()
        for sequence, tokens in chunks:
            blocks += self._blocks_missing(sequence, sequence.computed + tokens)
        if blocks > self.cache.free:
            return self._scan(plan)
        if self.pack.size:
            plan.packed = True
            plan.reserved = self.pack.blocks_next()
            self.cache.take(plan.reserved)
        keyed = self._note_keyed() if self._keyed else []
        for sequence, tokens in chunks:
            while keyed and keyed[-1].order < sequence.order:
                self._note(keyed.pop(), 1)
            self.cache.extend(sequence, sequence.computed + tokens)
            plan.chunk(sequence, tokens)
            budget -= tokens
        while keyed:
            self._note(keyed.pop(), 1)
        return budget

    def _note_keyed(self) -> list[Sequence]:
        """Cache what the pack computed by now; return whose next token may complete a block, the
        first in the batch last."""
        keyed = sorted(self._keyed, key=_order)
        for member in keyed:
            self._note(member, 0)
        return keyed[::-1]

    def _note(self, member: Sequence, more: int) -> None:
        assert member.base is not None
        self.cache.note(member, member.base + self.pack.tick + more)

    def _chunks(self, budget: int) -> list[tuple[Sequence, int]] | None:
        """What the running prompts compute, if no decode has to go without for it; else None."""
        prefilling = self._prefilling
        if budget < 0:
            return None
        if not prefilling:
            return []
        chunks = []
        cap = self._chunk_cap()
        for sequence in prefilling:
            tokens = sequence.total - sequence.computed
            if 0 < cap < tokens:
                tokens = cap
            if budget > 0:
                tokens = min(tokens, budget)
                chunks.append((sequence, tokens))
                budget -= tokens
        if budget <= 0 and self.pack.size and prefilling[0].order < self.pack.newest:
            return None  # the budget ran out before everybody of the pack had its turn
        return chunks

    def _scan(self, plan: StepPlan) -> int:
        """`_schedule_running`, sequence by sequence."""
        self._unpack()
        budget = self._limits.max_num_batched_tokens
        cap = self._chunk_cap()
        order = list(self._running)
        given: dict[Sequence, int] = {}
        index = 0
        while index < len(order) and budget > 0:
            sequence = order[index]
            tokens = sequence.total - sequence.computed
            if 0 < cap < tokens:
                tokens = cap
            tokens = min(tokens, budget)
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
            if sequence not in self._running:
                break  # it was the last that could make room, and nobody after it may go on
            self.cache.extend(sequence, sequence.computed + tokens)
            given[sequence] = tokens
            budget -= tokens
            index += 1
        for sequence, tokens in given.items():
            if sequence.generated and sequence.computed == sequence.total - 1:
                plan.decodes.append(sequence)
            else:
                plan.chunk(sequence, tokens)
        return budget

    def _victim(self, order: list[Sequence]) -> Sequence:
        return max(order, key=_age) if self._limits.priorities else order[-1]

    def _preempt(self, victim: Sequence, plan: StepPlan) -> None:
        del self._running[victim]
        if victim in self._prefilling:
            self._prefilling.remove(victim)
        self.cache.release(victim, returns=True)
        victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        plan.preempted.append(victim)
        self._waiting.put_back(victim)

    # --- admission -----------------------------------------------------------------------------

    def _admit(self, plan: StepPlan, budget: int) -> None:
        waiting, running, limits = self._waiting, self._running, self._limits
        while budget > 0 and waiting.length and len(running) < limits.max_num_seqs:
            sequence = waiting.head()
            admission = self._admissible(sequence, budget)
            if admission is None:
                return  # the head of the line blocks
            tokens, hit = admission
            waiting.pop()
            self._start(sequence, tokens, hit)
            running[sequence] = None
            self._prefilling.append(sequence)
            plan.admitted.append(sequence)
            plan.chunk(sequence, tokens)
            budget -= tokens

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

    def _admissible(self, sequence: Sequence, budget: int) -> tuple[int, Hit] | None:
        """What a waiting sequence would compute in this step; None if it has to wait."""
        limits, cache = self._limits, self.cache
        hit = cache.find(sequence)
        computed = hit.blocks * limits.block_size
        tokens = sequence.total - computed
        cap = self._chunk_cap()
        if 0 < cap < tokens:
            tokens = cap
        if tokens > budget:
            if not limits.chunked_prefill:
                return None
            tokens = budget
        upto = sequence.total if limits.reserve_full_sequence else computed + tokens
        needed = -(-upto // limits.block_size) - hit.blocks + hit.free
        if self._running:
            needed += limits.watermark_blocks
        return (tokens, hit) if needed <= cache.free else None

    def _chunk_cap(self) -> int:
        """Tokens of one prompt in this step at most; 0 is no bound."""
        limits = self._limits
        cap = limits.long_prefill_token_threshold
        if not cap:
            return 0
        there = len(self._running) + self._waiting.length
        if there <= 1:
            return 0
        if limits.long_prefill_adaptive:
            return max(cap, limits.max_num_batched_tokens // there)
        return cap

    # --- the pack ------------------------------------------------------------------------------

    def _blocks_missing(self, sequence: Sequence, tokens: int) -> int:
        held = len(sequence.blocks) + sequence.own
        return max(0, -(-tokens // self._limits.block_size) - held)

    def _unpack(self) -> None:
        for sequence in self._running:
            self._leave_pack(sequence)
        self._prefilling = list(self._running)

    def _leave_pack(self, sequence: Sequence) -> None:
        if sequence.base is not None:
            self.pack.leave(sequence)
            self._settle(sequence)

    def _settle(self, sequence: Sequence) -> None:
        """Write down the blocks of one that just left the pack."""
        self._keyed.discard(sequence)
        computed = sequence.computed
        sequence.own = -(-computed // self._limits.block_size) - len(sequence.blocks)
        self.cache.note(sequence, computed)

    def _drop(self, sequence: Sequence) -> None:
        sequence.gone = True
        del self._running[sequence]
        self.cache.release(sequence)


def _order(sequence: Sequence) -> int:
    return sequence.order


def _age(sequence: Sequence) -> tuple[int, int]:
    return (sequence.priority, sequence.arrival)
