"""A batch that is planned before the tokens of the step before it are known.

vLLM's asynchronous scheduling keeps two steps in flight: while one computes, the next is planned as
if every sequence were given its token. So an arrival waits for one step more, what ends is freed
one step later, a block is cached when its last token is known, and a preempted sequence may be
given a token that was under way when it lost its place. (vLLM 0.32: `AsyncScheduler`,
`EngineCore.step_with_batch_queue`.)

Each step is planned by itself, except in a run: while one step is in flight that all sequences
decode in, and nobody ends or can be admitted, all steps that follow are planned as it was.
"""

from __future__ import annotations

from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.rules import Rules
from anyserve.core.engine.sequence import Sequence


class AsyncBatch(Rules):
    """Plans may be made while an earlier one is not committed; they are committed in order."""

    def __init__(self, limits: EngineLimits) -> None:
        super().__init__(limits)
        self._work: dict[StepPlan, list[tuple[Sequence, int]]] = {}
        """What was planned and is not committed, in the order of the batch."""
        self._placed: dict[Sequence, None] = {}

    def placed(self) -> list[Sequence]:
        """See `Rules`."""
        return list(self._placed)

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; what it has in flight comes to nothing."""
        if sequence.gone:
            return
        if sequence.placed:
            self._drop(sequence)
        else:
            sequence.gone = True
            self._waiting.discard(sequence)

    def plan(self, most: int = 1) -> StepPlan:
        """Decide the next step; it is one, whatever `most` says."""
        del most
        plan = StepPlan()
        given, budget = self._scan(plan, self.placed())
        work = list(given.items())
        if self._waiting.length and budget > 0 and not plan.preempted:
            work += self._admit(plan, budget)
        for sequence, tokens in work:
            expected = sequence.total + sequence.placeholders
            if expected > sequence.prompt and sequence.computed == expected - 1:
                plan.decode(sequence)
            else:
                plan.chunk(sequence, tokens)
            sequence.computed += tokens
            sequence.in_flight += tokens
            if sequence.computed == expected:
                plan.sampling.append(sequence)
                if sequence.room:
                    sequence.placeholders += 1
        self._work[plan] = work
        return plan

    def commit(self, plan: StepPlan) -> tuple[list[Sequence], list[Sequence]]:
        """End the oldest planned step: return whose prompt is now complete, and who is complete."""
        sampling = set(plan.sampling)
        ended: list[Sequence] = []
        prefilled = []
        decodes = set(plan.decodes)
        for sequence, tokens in self._work.pop(plan):
            sequence.in_flight -= tokens
            late = sequence.stale > 0  # it was preempted since
            if late:
                sequence.stale -= tokens
            if sequence.gone or sequence not in sampling:
                continue
            if sequence not in decodes:
                prefilled.append(sequence)
            self._sample(sequence, late=late)
            if sequence.gone:
                ended.append(sequence)
        return prefilled, ended

    def run(self, plan: StepPlan, most: int) -> int:
        """For how many steps, but not more than `most`, the only plan in flight and those that will
        be made while they run are the same: all sequences decode, nothing else is decided. 0 or 1:
        it is no run. `commit_run` ends it."""
        decodes, running, limits = plan.decodes, self.running, self._limits
        if not decodes or plan.prefills or len(decodes) != running or len(self._work) != 1:
            return 0
        if self._waiting.length and running < limits.max_num_seqs:
            return 0
        steps = most
        for sequence in decodes:
            steady = sequence.placeholders == 1 and sequence.in_flight == 1 and not sequence.stale
            if not steady or sequence.gone or len(sequence.keys) > sequence.cached:
                return 0
            # The step after the one that its last token is under way in is planned without it.
            steps = min(steps, sequence.room - sequence.generated - 1)
        while steps > 1 and self.blocks_for(plan, steps) > self.cache.free:
            steps //= 2
        return steps

    def blocks_for(self, plan: StepPlan, steps: int) -> int:
        """Blocks that are taken by the plans which are made in the first `steps` steps of a run."""
        blocks = 0
        for sequence in plan.decodes:
            blocks += self._blocks_missing(sequence, sequence.computed + steps)
        return blocks

    def commit_run(self, plan: StepPlan) -> StepPlan:
        """End the steps of a run: each is given a token in each. Returns the plan in flight."""
        steps, work = plan.steps, self._work.pop(plan)
        following = StepPlan()
        following.decodes = following.sampling = plan.decodes
        following.context = plan.context + steps * len(plan.decodes)
        for sequence, _ in work:
            self.cache.extend(sequence, sequence.computed + steps)
            sequence.computed += steps
            sequence.generated += steps
            self.cache.note(sequence, sequence.computed - sequence.placeholders)
        self._work[following] = work
        return following

    def _sample(self, sequence: Sequence, *, late: bool) -> None:
        if sequence.room:
            sequence.generated += 1
            if not late:
                sequence.placeholders -= 1
        runs = sequence.placed
        if runs:
            self.cache.note(sequence, sequence.computed - sequence.placeholders)
        if sequence.generated < sequence.room:
            return
        if runs:
            self._drop(sequence)
        else:
            sequence.gone = True
            self._waiting.discard(sequence)

    def _enter(self, sequence: Sequence) -> None:
        super()._enter(sequence)
        self._placed[sequence] = None

    def _leave(self, sequence: Sequence) -> None:
        super()._leave(sequence)
        del self._placed[sequence]

    def _wanted(self, sequence: Sequence) -> int:
        expected = sequence.total + sequence.placeholders
        if expected >= sequence.prompt + sequence.room and sequence.placeholders:
            return 0  # its last token is under way
        return expected - sequence.computed

    def _held_back(self, sequence: Sequence) -> bool:
        return sequence.stale > 0

    def _preempted(self, sequence: Sequence) -> None:
        sequence.stale = sequence.in_flight
        sequence.placeholders = 0
