"""A batch whose steps end before the next one is planned, and that can run ahead.

Sequences that compute one token per step are not touched in each step: they share a `tick`, and
what they need is read from sums over them (`Pack`). Where a rule has to look at them one by one
(blocks or budget run out), they are taken out of the pack first; the decisions are the same.
"""

from __future__ import annotations

from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.rules import Rules, by_order
from anyserve.core.engine.sequence import NOBODY, Sequence


class Batch(Rules):
    """Waiting and running sequences of one engine, and its KV memory. Decides what comes next."""

    def __init__(self, limits: EngineLimits) -> None:
        super().__init__(limits)
        self._prefilling: list[Sequence] = []
        """Running, and not in the pack; in the order of the batch."""
        self._keyed: set[Sequence] = set()
        """Members of the pack that fill blocks others could find."""
        self._run = StepPlan()
        """The plan of steps in which only the pack decodes; there is one at a time."""
        self._run.packed = True

    def placed(self) -> list[Sequence]:
        """See `Rules`."""
        return sorted([*self.pack.members, *self._prefilling], key=by_order)

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence.gone:
            return
        if sequence.placed:
            if sequence.base is None:
                self._prefilling.remove(sequence)
            self._leave_pack(sequence)
            self._drop(sequence)
        else:
            sequence.gone = True
            self._waiting.discard(sequence)

    def plan(self, most: int = 1) -> StepPlan:
        """Decide what comes next: one step, or as many as only the pack decodes in, with nothing
        else to decide, but not more than `most`. What the pack computes counts when `commit` is
        called, the tokens of others count as computed from now on."""
        pack = self.pack
        if pack.size and not self._prefilling and not self._has_place():
            plan = self._run
            plan.reserved = 0
            plan.steps = pack.affordable(min(pack.until_end(), most), self.cache.free)
            if plan.steps:
                return plan
        plan = StepPlan()
        budget = self._schedule_running(plan)
        if self._waiting.length and budget > 0 and not plan.preempted:
            for sequence, tokens in self._admit(plan, budget):
                plan.chunk(sequence, tokens)
                self._prefilling.append(sequence)
        if plan.prefills or plan.decodes:
            _count(plan)
        elif plan.packed and most > 1 and not self._keyed:
            # Nobody could be admitted. So it stays while only the pack decodes: blocks become
            # fewer, and a cached block that is given out is one to compute more.
            free = self.cache.free + plan.reserved
            plan.steps = pack.affordable(min(pack.until_end(), most), free)
        return plan

    def commit(self, plan: StepPlan) -> tuple[list[Sequence], list[Sequence]]:
        """End the planned steps: return whose prompt is now complete, and who is complete."""
        pack = self.pack
        ended: list[Sequence]
        if plan.packed:
            if plan.steps > 1 or not plan.reserved:
                self.cache.take(pack.blocks_for(plan.steps) - plan.reserved)
            ended = pack.advance(plan.steps)
            for sequence in ended:
                self._settle(sequence)
        else:
            ended = []
        prefilled = NOBODY
        if plan.prefills or plan.decodes:
            for sequence in plan.sampling:
                self._sample(sequence, ended)
            prefilled = plan.sampling[len(plan.decodes) :] if plan.decodes else plan.sampling
            self._sort_prefilling(ended)
        if ended:
            if len(ended) > 1:
                ended.sort(key=by_order)
            for sequence in ended:
                self._drop(sequence)
        return prefilled, ended

    def _has_place(self) -> bool:
        """Whether somebody waits and the batch is not full."""
        limits = self._limits
        return (
            self._waiting.length > 0
            and self.running < limits.max_num_seqs
            and self.pack.size < limits.max_num_batched_tokens
        )

    def _sample(self, sequence: Sequence, ended: list[Sequence]) -> None:
        if sequence.room:
            sequence.generated += 1
        if sequence.generated >= sequence.room:
            ended.append(sequence)
        else:
            self._join(sequence)

    def _sort_prefilling(self, ended: list[Sequence]) -> None:
        """Keep who is still at its prompt; who only had to wait for its turn joins the pack."""
        prefilling, self._prefilling = self._prefilling, []
        for sequence in prefilling:
            if sequence.base is not None or sequence in ended:
                continue
            if sequence.generated and sequence.computed == sequence.total - 1:
                self._join(sequence)
            else:
                self._prefilling.append(sequence)

    # --- who runs already ----------------------------------------------------------------------

    def _schedule_running(self, plan: StepPlan) -> int:
        """Schedule who runs already; return the tokens that are left."""
        budget = self._limits.max_num_batched_tokens - self.pack.size
        chunks = self._chunks(budget)
        if chunks is None:
            return self._one_by_one(plan)
        blocks = self.pack.blocks_next()
        for sequence, tokens in chunks:
            blocks += self._blocks_missing(sequence, sequence.computed + tokens)
        if blocks > self.cache.free:
            return self._one_by_one(plan)
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

    def _one_by_one(self, plan: StepPlan) -> int:
        """`_schedule_running` by the general rules."""
        order = self.placed()
        for sequence in order:
            self._leave_pack(sequence)
        given, budget = self._scan(plan, order)
        self._prefilling = order
        for sequence, tokens in given.items():
            if sequence.generated and sequence.computed == sequence.total - 1:
                plan.decode(sequence)
            else:
                plan.chunk(sequence, tokens)
        return budget

    def _note_keyed(self) -> list[Sequence]:
        """Cache what the pack computed by now; return whose next token may complete a block, the
        first in the batch last."""
        keyed = sorted(self._keyed, key=by_order)
        for member in keyed:
            self._note(member, 0)
        return keyed[::-1]

    def _note(self, member: Sequence, more: int) -> None:
        assert member.base is not None
        self.cache.note(member, member.base + self.pack.tick + more)

    # --- the pack ------------------------------------------------------------------------------

    def _join(self, sequence: Sequence) -> None:
        self.pack.join(sequence)
        if len(sequence.keys) > sequence.cached and self._limits.prefix_caching:
            self._keyed.add(sequence)

    def _leave_pack(self, sequence: Sequence) -> None:
        if sequence.base is not None:
            self.pack.leave(sequence)
            self._settle(sequence)

    def _settle(self, sequence: Sequence) -> None:
        """Write down the blocks of one that just left the pack."""
        if sequence.keys:
            self._keyed.discard(sequence)
        computed = sequence.computed
        sequence.own = -(-computed // self._limits.block_size) - len(sequence.blocks)
        self.cache.note(sequence, computed)


def _count(plan: StepPlan) -> None:
    """Count what is planned outside the pack as computed, and see who is given a token for it."""
    for sequence in plan.decodes:
        sequence.computed += 1
        plan.sampling.append(sequence)
    for sequence, tokens in plan.prefills:
        sequence.computed += tokens
        if sequence.computed == sequence.total:
            plan.sampling.append(sequence)
