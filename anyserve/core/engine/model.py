"""The engine as a driver sees it: sequences in, stretches of steps out. No clock of its own.

Two drivers use it. The simulator runs it in virtual time and lets it take many steps at once; the
`model` engine runs it in real time, step by step, and sleeps. Both see the same steps.

    engine.add(sequence, now_ps)            # may shorten the stretch that is under way
    stretch = engine.start(now_ps)          # None: nothing to do; else it ends at engine.end_ps
    ...                                     # at engine.end_ps (it may have come closer by then)
    done = engine.finish()                  # who was given a token, who ended

Times are whole picoseconds (ps), so that a sum over many steps is exact: a stretch of k steps ends
at the same picosecond as k stretches of one step. A driver whose clock counts nanoseconds passes
`now_ns * 1000` in and rounds `end_ps` up (`stretch.to_ns`).

What a step sees: a sequence that was added at `t` takes part in the first step that starts at or
after `t`, and an abort at `t` acts before the first step that starts at or after `t`. As that is
decided by times and not by the order of calls, a driver may handle a step's end and an arrival of
the same nanosecond in any order.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from anyserve.core.engine.async_batch import AsyncBatch
from anyserve.core.engine.batch import Batch
from anyserve.core.engine.cooling import LONG_AGO_PS, Cooling
from anyserve.core.engine.jitter import Jitter
from anyserve.core.engine.keys import SegmentKeys
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.range_watch import RangeWatch
from anyserve.core.engine.rules import UNBOUNDED
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.step_time import StepTime, StepTimeModel, StepWork
from anyserve.core.engine.stretch import Stretch

FULL_PACE: Final = 1000


class EngineLoad(NamedTuple):
    """What the engine reports of itself, as of the last step that ended."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    """Share of the KV blocks in use, 0 to 1."""
    prefix_queries: int = 0
    """Tokens looked up in the prefix cache so far."""
    prefix_hits: int = 0
    """Tokens found there so far."""
    preemptions: int = 0
    """Preemptions so far."""


# What the inbox holds. Plain numbers: a member of an enumeration is reached by a call into Python.
_ADD: Final = 0
_ABORT: Final = 1
_PACE: Final = 2


class _Wish:
    """What somebody asked for, until the engine obeys: when it came, what to do, and with what.
    Then the next one."""

    __slots__ = ("at_ps", "do", "following", "what")

    def __init__(self, at_ps: int, do: int, what: Any) -> None:
        self.at_ps = at_ps
        self.do = do
        self.what = what
        self.following: _Wish | None = None


class EngineModel:
    """One engine: queue, batch, KV memory and the time that steps take.

    Args:
        limits: Bounds and rules.
        step_time: Duration of steps. Stretches of several steps need a `StepTimeModel`; with any
            other model each step is a stretch.
        intake_ps: Time that the engine's loop spends on taking a new sequence in, before a step.
        cooling: How much longer the first step takes after the engine stood still.
        shape_ps: How much longer, for each of its tokens, a step takes that computes so many as
            none before it.
        jitter: What real steps differ by; None is no difference.
        watch: Is shown what each stretch computes.
    """

    def __init__(
        self,
        limits: EngineLimits,
        step_time: StepTime,
        *,
        intake_ps: int = 0,
        cooling: Cooling | None = None,
        shape_ps: int = 0,
        jitter: Jitter | None = None,
        watch: RangeWatch | None = None,
    ) -> None:
        self._batch: Batch | AsyncBatch
        self._ahead = AsyncBatch(limits) if limits.async_scheduling else None
        self._batch = self._ahead or Batch(limits)
        self._queued: StepPlan | None = None
        """What was planned ahead of the stretch under way."""
        self._runs = False
        """Whether that is a run, whose plans are made when it ends."""
        self._keys = SegmentKeys(limits.block_size) if limits.prefix_caching else None
        self._step_time = step_time
        self._formula = step_time.formula() if isinstance(step_time, StepTimeModel) else None
        self._intake_ps = intake_ps
        self._cooling = cooling
        self._shape_ps = shape_ps
        self._shapes = {1, limits.max_num_batched_tokens}
        """Numbers of tokens that a step has computed; these when the engine warmed up."""
        self._ended_ps = -LONG_AGO_PS
        """When the last step ended; before the first one, long ago."""
        self._jitter = jitter
        self._watch = watch
        self._pace = FULL_PACE
        self._wish: _Wish | None = None
        """The first that was not obeyed yet."""
        self._last_wish: _Wish | None = None
        """The last one, where there is a first."""
        self._stretch: Stretch | None = None
        self._plan = StepPlan()
        self._before = self._batch.state()
        """The batch when the last step ended."""
        self._wait_ps = 0
        """For what was taken in since the last step."""
        self._steps = 0

    @property
    def busy(self) -> bool:
        """Whether a stretch is under way."""
        return self._stretch is not None

    def has_work_by(self, now_ps: int) -> bool:
        """Whether anything waits or runs then, what comes until then included."""
        comes = self._wish is not None and self._wish.at_ps <= now_ps
        return comes or self._batch.running > 0 or self._batch.waiting > 0

    @property
    def waits_ps(self) -> int | None:
        """When the first of what came is to be obeyed, where a driver said so before its time;
        None: nothing is to come."""
        return None if self._wish is None else self._wish.at_ps

    @property
    def end_ps(self) -> int:
        """When the stretch under way ends. Comes closer when something arrives, never later."""
        assert self._stretch is not None, "no stretch is under way"
        return self._stretch.end_ps

    @property
    def stretch(self) -> Stretch | None:
        """The stretch under way."""
        return self._stretch

    @property
    def decoding(self) -> list[Sequence]:
        """The sequences that are given a token in every step of the stretch under way, those whose
        prompt ends in it aside; in the order of the batch."""
        return self._batch.members() if self._plan.packed else list(self._plan.decodes)

    def add(self, sequence: Sequence, now_ps: int) -> None:
        """Queue a sequence. A stretch under way is cut at its first step end at or after now.

        A driver may say before its time what will come; `waits_ps` is when an engine that stands
        still has to be started for it."""
        if sequence.shared and self._keys is not None:
            sequence.keys = self._keys.of(sequence.shared)
        self._put(_Wish(now_ps, _ADD, sequence))
        self.cut(now_ps)

    def abort(self, sequence: Sequence, now_ps: int) -> None:
        """Forget a sequence, before the first step that starts at or after now. A stretch under way
        is cut as `add` does; the sequence may still end in it. Unknown ones are ignored."""
        self._put(_Wish(now_ps, _ABORT, sequence))
        self.cut(now_ps)

    def obey(self, now_ps: int) -> None:
        """Do what was said by now before there is a step to start, where none is under way."""
        if self._stretch is None:
            self._take_in(now_ps)

    def set_pace(self, permille: int, now_ps: int) -> None:
        """Let steps that start at or after now take so many thousandths of their time: 2000 is half
        as fast. For neighbours on the host, and for faults."""
        self._put(_Wish(now_ps, _PACE, permille))
        self.cut(now_ps)

    def _put(self, wish: _Wish) -> None:
        """Behind those that came before it."""
        before, last = self._wish, self._last_wish
        if before is None or last is None:
            self._wish = self._last_wish = wish
        elif wish.at_ps >= last.at_ps:
            last.following = self._last_wish = wish
        elif wish.at_ps < before.at_ps:
            wish.following, self._wish = before, wish
        else:
            following = before.following
            while following is not None and following.at_ps <= wish.at_ps:
                before, following = following, following.following
            before.following, wish.following = wish, following

    def cut(self, now_ps: int) -> None:
        """Let the stretch under way end with its first step that ends at or after now: something
        about the steps that follow will change."""
        stretch = self._stretch
        if stretch is None or stretch.steps == 1 or now_ps >= stretch.end_ps:
            return
        steps = stretch.ended_before(now_ps) + 1
        if steps < stretch.steps:
            stretch.steps = steps
            stretch.end_ps = stretch.start_ps + stretch.after(steps)

    def delay(self, late_ps: int) -> None:
        """The step under way, the last one of its stretch, ends so much later: the engine stood
        still. Call `cut` when it stops, and this when it goes on."""
        assert self._stretch is not None, "no stretch is under way"
        self._stretch.late_ps += late_ps
        self._stretch.end_ps += late_ps

    def start(self, now_ps: int, max_steps: int | None = None) -> Stretch | None:
        """Begin the next stretch; None if there is nothing to compute.

        Args:
            now_ps: When it begins: the `end_ps` before, if the engine was busy until then.
            max_steps: At most so many steps; 1 is the exact mode. None: as many as have the same
                sequences decoding and nothing else to decide.
        """
        assert self._stretch is None, "the stretch before was not finished"
        batch = self._batch
        self._before = batch.state()
        if self._wish is not None:
            self._take_in(now_ps)
        if self._formula is None:
            max_steps = 1
        most = UNBOUNDED if max_steps is None else max_steps
        if self._ahead is None:
            plan = self._plan = self._next_plan(most)
            stretch = self._stretch = self._measure(now_ps, plan)
        else:
            stretch = self._start_ahead(self._ahead, now_ps, most)
        if self._wish is not None:
            # It came after now: between the step's end and its whole nanosecond, say.
            self.cut(self._wish.at_ps)
        return stretch

    def _next_plan(self, most: int) -> StepPlan:
        """The next plan with work in it, if there is any. A sequence that makes room for nobody but
        preempts itself leaves a step without work; vLLM goes on at once, and so do we."""
        plan = self._batch.plan(most)
        while plan.empty and plan.preempted:
            preempted = plan.preempted
            self._batch.commit(plan)
            plan = self._batch.plan(most)
            plan.preempted = [*preempted, *plan.preempted]
        return plan

    def _start_ahead(self, batch: AsyncBatch, now_ps: int, most: int) -> Stretch | None:
        """Begin the step that was planned when the one before began, and plan the one after; or a
        run of steps that are all planned alike."""
        plan, self._queued = self._queued, None
        new: list[StepPlan] = []
        if plan is not None and most > 1 and (steps := batch.run(plan, most)) > 1:
            plan.steps, self._runs = steps, True
            self._plan = plan
            stretch = self._stretch = self._measure(now_ps, plan)
            return self._told_of(stretch, new)
        if plan is None or plan.empty:
            if plan is not None:
                self._batch.commit(plan)
            plan = self._next_plan(1)
            new.append(plan)
        self._plan = plan
        stretch = self._stretch = self._measure(now_ps, plan)
        if stretch is not None:
            self._queued = self._batch.plan()
            new.append(self._queued)
        return self._told_of(stretch, new)

    def _told_of(self, stretch: Stretch | None, new: list[StepPlan]) -> Stretch | None:
        """The stretch, with what was decided as it began."""
        if stretch is not None:
            stretch.admitted = [one for made in new for one in made.admitted]
            stretch.preempted = [one for made in new for one in made.preempted]
        return stretch

    def finish(self) -> Stretch:
        """End the stretch under way: its tokens are generated, its finished sequences are gone."""
        stretch = self._stretch
        assert stretch is not None, "no stretch is under way"
        self._stretch = None
        self._wait_ps = 0
        self._ended_ps = stretch.end_ps
        self._steps += stretch.steps
        self._plan.steps = stretch.steps
        if self._runs and self._ahead is not None:
            self._runs = False
            self._queued = self._ahead.commit_run(self._plan)
        else:
            stretch.prefilled, stretch.finished = self._batch.commit(self._plan)
        return stretch

    def sequences(self) -> list[Sequence]:
        """All that were added and are neither complete nor forgotten, in no order."""
        found = self._batch.sequences()
        wish = self._wish
        while wish is not None:
            if wish.do == _ADD:
                found.append(wish.what)
            wish = wish.following
        return found

    def tokens_at(self, sequence: Sequence, now_ps: int) -> int:
        """Tokens that a sequence has been given by now, those of the stretch under way that were
        complete by now included. What a crash at this moment would leave."""
        stretch = self._stretch
        done = 0 if stretch is None else stretch.ended_before(now_ps + 1)
        if sequence.base is not None:
            return self._batch.pack.generated(sequence, done)
        if done and sequence.room and not sequence.gone and sequence in self._plan.sampling:
            return sequence.generated + done
        return sequence.generated

    def load(self, now_ps: int) -> EngineLoad:
        """What the engine last reported, at the end of the last step that ended by now."""
        running, waiting, free, queries, hits, preemptions = self._state_at(now_ps)
        usage = self._batch.cache.usage_at(free)
        return EngineLoad(running, waiting, usage, queries, hits, preemptions)

    def kv_usage(self, now_ps: int) -> float:
        """That of `load`."""
        return self._batch.cache.usage_at(self._state_at(now_ps)[2])

    def _state_at(self, now_ps: int) -> tuple[int, int, int, int, int, int]:
        batch, stretch = self._batch, self._stretch
        if stretch is None:
            return batch.state()
        if stretch.steps == 1 or not (done := stretch.ended_before(now_ps + 1)):
            return self._before
        running, waiting, free, queries, hits, preemptions = batch.state()
        if self._runs and self._ahead is not None:
            taken = self._ahead.blocks_for(self._plan, done)
        else:
            taken = batch.pack.blocks_for(done) - self._plan.reserved
        return running, waiting, free - taken, queries, hits, preemptions

    def _take_in(self, now_ps: int) -> None:
        """Obey what came by now; it takes its time before the next step."""
        wish = self._wish
        while wish is not None and wish.at_ps <= now_ps:
            if wish.do == _ADD:
                self._batch.add(wish.what)
                self._wait_ps += self._intake_ps
            elif wish.do == _ABORT:
                self._batch.abort(wish.what)
            else:
                self._pace = wish.what
            wish = wish.following
        self._wish = wish
        if wish is None:
            self._last_wish = None

    def _measure(self, now_ps: int, plan: StepPlan) -> Stretch | None:
        """What is planned, with its times; None: nothing is."""
        pack = self._batch.pack
        if plan.packed:
            decodes, context = pack.size, pack.context
        elif plan.prefills or plan.decodes:
            decodes, context = len(plan.decodes), plan.context
        else:
            return None
        if self._watch is not None:
            self._watch.look(plan.prefill_tokens, decodes, context + (plan.steps - 1) * decodes)
        prefills = len(plan.prefills)
        formula = self._formula
        pace = self._pace
        if formula is None:
            work = StepWork(plan.prefill_tokens, prefills, decodes, context, plan.attention)
            fixed = self._step_time.step_ps(work) * pace // FULL_PACE
            each = rest = 0
        else:
            fixed = formula.fixed_ps(plan.prefill_tokens, prefills, decodes)
            each = formula.context_ps
            rest = formula.attention_ps * plan.attention // 2
            if pace != FULL_PACE:  # the coefficients, so that a run stays an arithmetic series
                fixed = fixed * pace // FULL_PACE
                each = each * pace // FULL_PACE
                rest = rest * pace // FULL_PACE
        wait_ps = self._wait_ps + self._unready_ps(now_ps, plan.prefill_tokens + decodes)
        stretch = Stretch(now_ps, plan, wait_ps)
        stretch.first_ps = fixed + each * context + rest
        stretch.growth_ps = each * decodes
        if self._jitter is not None:
            stretch.noise = self._jitter.noise(self._steps, fixed)
        stretch.end_ps = now_ps + stretch.after(stretch.steps)
        return stretch

    def _unready_ps(self, now_ps: int, tokens: int) -> int:
        """Time for what the machine has to do anew: fill its caches, prepare its products."""
        unready_ps = 0
        if self._cooling is not None and now_ps > self._ended_ps:
            unready_ps = self._cooling.after(now_ps - self._ended_ps)
        if self._shape_ps and tokens not in self._shapes:
            self._shapes.add(tokens)
            unready_ps += self._shape_ps * tokens
        return unready_ps
