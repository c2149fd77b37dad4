"""The engine as a driver sees it: sequences in, stretches of steps out. No clock of its own.

Two drivers use it. The simulator runs it in virtual time and lets it take many steps at once; the
`model` engine runs it in real time, step by step, and sleeps. Both see the same steps.

    engine.add(sequence, now_ps)            # may shorten the stretch that is under way
    stretch = engine.start(now_ps)          # None: nothing to do; else it ends at engine.end_ps
    ...                                     # at engine.end_ps (it may have come closer by then)
    done = engine.finish()                  # who was given a token, who ended

Times are whole picoseconds (ps), so that a sum over many steps is exact: a stretch of k steps ends
at the same picosecond as k stretches of one step. A driver whose clock counts nanoseconds passes
`now_ns * 1000` in and rounds `end_ps` up (`to_ns`).

What a step sees: a sequence that was added at `t` takes part in the first step that starts at or
after `t`, and an abort at `t` acts before the first step that starts at or after `t`. As that is
decided by times and not by the order of calls, a driver may handle a step's end and an arrival of
the same nanosecond in any order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

from anyserve.core.engine.batch import Batch, StepPlan
from anyserve.core.engine.jitter import Jitter, Noise
from anyserve.core.engine.keys import SegmentKeys
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.step_time import StepTime, StepTimeModel, StepWork

PS_PER_NS: Final = 1000
FULL_PACE: Final = 1000


def to_ns(time_ps: int) -> int:
    """The first whole nanosecond that is not before `time_ps`."""
    return -(-time_ps // PS_PER_NS)


@dataclass(slots=True, kw_only=True)
class Stretch:
    """Steps under way: one step of any kind, or several in which the same sequences decode.

    Only the last step of a stretch can end a sequence or complete a prompt. In each of its steps
    every sequence of `EngineModel.decoding` is given one token.
    """

    start_ps: int
    steps: int
    """At least 1; fewer once the stretch was cut."""
    end_ps: int
    """When the last step ends."""
    wait_ps: int
    """Before the first step: the engine takes new sequences in."""
    first_ps: int
    """How long the first step takes after that."""
    growth_ps: int = 0
    """How much longer each step takes than the one before it."""
    noise: Noise | None = None
    admitted: list[Sequence] = field(default_factory=list)
    """Taken out of the queue at `start_ps` (for the first time, or again after a preemption)."""
    preempted: list[Sequence] = field(default_factory=list)
    """Put back into the queue at `start_ps`; they lose their blocks, not their tokens."""
    prefilled: list[Sequence] = field(default_factory=list)
    """Filled in by `finish`. Their last prompt token is computed: they were given one token at
    `end_ps`, their first one if `generated` is 1. (Embeddings: they are complete.)"""
    finished: list[Sequence] = field(default_factory=list)
    """Filled in by `finish`. Complete at `end_ps`, in the order of the batch; those of `prefilled`
    may be among them."""

    def step_end_ps(self, number: int) -> int:
        """When step `number` (from 1) ends. The last one's end is `end_ps`, even where it was
        delayed."""
        if number == self.steps:
            return self.end_ps
        return self.start_ps + self.after(number)

    def after(self, steps: int) -> int:
        """Time from the start to the end of step number `steps`, undisturbed; 0 for none."""
        if not steps:
            return 0
        time_ps = self.wait_ps + steps * self.first_ps
        time_ps += self.growth_ps * (steps * (steps - 1) // 2)
        if self.noise is not None:
            time_ps += self.noise.sum_ps(steps)
        return time_ps


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


class _Do(IntEnum):
    ADD = 0
    ABORT = 1
    PACE = 2


class _Seen(NamedTuple):
    """State of the batch when the last step ended; `EngineLoad` with blocks for a share."""

    running: int
    waiting: int
    free: int
    prefix_queries: int
    prefix_hits: int
    preemptions: int


class EngineModel:
    """One engine: queue, batch, KV memory and the time that steps take.

    Args:
        limits: Bounds and rules.
        step_time: Duration of steps. Stretches of several steps need a `StepTimeModel`; with any
            other model each step is a stretch.
        intake_ps: Time that the engine's loop spends on taking a new sequence in, before a step.
        jitter: What real steps differ by; None is no difference.
    """

    def __init__(
        self,
        limits: EngineLimits,
        step_time: StepTime,
        *,
        intake_ps: int = 0,
        jitter: Jitter | None = None,
    ) -> None:
        self._batch = Batch(limits)
        self._step_time = step_time
        self._formula = step_time if isinstance(step_time, StepTimeModel) else None
        self._intake_ps = intake_ps
        self._jitter = jitter
        self._pace = FULL_PACE
        self._inbox: deque[tuple[int, _Do, Any]] = deque()
        self._seen = self._look()
        self._keys = SegmentKeys(limits.block_size) if limits.prefix_caching else None
        self._stretch: Stretch | None = None
        self._plan: StepPlan | None = None
        """Of a stretch that is not a run of the pack alone."""
        self._wait_ps = 0
        """For what was taken in since the last step."""
        self._steps = 0

    @property
    def busy(self) -> bool:
        """Whether a stretch is under way."""
        return self._stretch is not None

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs, what was added a moment ago included."""
        return bool(self._inbox) or self._batch.running > 0 or self._batch.waiting > 0

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
        if self._plan is None:
            return self._batch.members()
        return self._batch.members() if self._plan.packed else list(self._plan.decodes)

    def add(self, sequence: Sequence, now_ps: int) -> None:
        """Queue a sequence. A stretch under way is cut at its first step end at or after now."""
        if sequence.shared and self._keys is not None:
            sequence.keys = self._keys.of(sequence.shared)
        self._inbox.append((now_ps, _Do.ADD, sequence))
        self.cut(now_ps)

    def abort(self, sequence: Sequence, now_ps: int) -> None:
        """Forget a sequence, before the first step that starts at or after now. A stretch under way
        is cut as `add` does; the sequence may still end in it. Unknown ones are ignored."""
        self._inbox.append((now_ps, _Do.ABORT, sequence))
        if self._stretch is None:
            self._take_in(now_ps)
        else:
            self.cut(now_ps)

    def set_pace(self, permille: int, now_ps: int) -> None:
        """Let steps that start at or after now take so many thousandths of their time: 2000 is half
        as fast. For neighbours on the host, and for faults."""
        self._inbox.append((now_ps, _Do.PACE, permille))
        self.cut(now_ps)

    def cut(self, now_ps: int) -> None:
        """Let the stretch under way end with its first step that ends at or after now: something
        about the steps that follow will change."""
        stretch = self._stretch
        if stretch is None or stretch.steps == 1 or now_ps >= stretch.end_ps:
            return
        stretch.steps = _steps_before(stretch, now_ps) + 1
        stretch.end_ps = stretch.start_ps + stretch.after(stretch.steps)

    def delay(self, late_ps: int) -> None:
        """The step under way, the last one of its stretch, ends so much later: the engine stood
        still. Call `cut` when it stops, and this when it goes on."""
        assert self._stretch is not None, "no stretch is under way"
        self._stretch.end_ps += late_ps

    def start(self, now_ps: int, max_steps: int | None = None) -> Stretch | None:
        """Begin the next stretch; None if there is nothing to compute.

        Args:
            now_ps: When it begins: the `end_ps` before, if the engine was busy until then.
            max_steps: At most so many steps; 1 is the exact mode. None: as many as have the same
                sequences decoding and nothing else to decide.
        """
        assert self._stretch is None, "the stretch before was not finished"
        self._seen = self._look()
        if self._inbox:
            self._take_in(now_ps)
        batch = self._batch
        steps = batch.run_length(max_steps if self._formula is not None else 1)
        if steps:
            self._plan = None
            pack = batch.pack
            work = StepWork(decodes=pack.size, context=pack.context)
            stretch = self._measure(now_ps, steps, work)
        else:
            self._plan = plan = batch.schedule()
            work = _work(plan, batch)
            if not (work.prefill_tokens or work.decodes):
                return None
            stretch = self._measure(now_ps, 1, work)
            stretch.admitted = plan.admitted
            stretch.preempted = plan.preempted
        stretch.end_ps += stretch.after(steps or 1)
        self._stretch = stretch
        return stretch

    def finish(self) -> Stretch:
        """End the stretch under way: its tokens are generated, its finished sequences are gone."""
        stretch = self._stretch
        assert stretch is not None, "no stretch is under way"
        self._stretch = None
        self._wait_ps = 0
        self._steps += stretch.steps
        if self._plan is None:
            stretch.finished = self._batch.advance(stretch.steps)
        else:
            stretch.prefilled, stretch.finished = self._batch.commit(self._plan)
        return stretch

    def tokens_at(self, sequence: Sequence, now_ps: int) -> int:
        """Tokens that a sequence has been given by now, those of the stretch under way that were
        complete by now included. What a crash at this moment would leave."""
        stretch = self._stretch
        done = 0
        if stretch is not None:
            done = _steps_before(stretch, now_ps + 1)
        if sequence.base is not None:
            return self._batch.pack.generated(sequence, done)
        if done and self._plan is not None and not sequence.gone:
            work = (*self._plan.decodes, *(one for one, _ in self._plan.prefills))
            return sequence.generated + (sequence in work and sequence.computed == sequence.total)
        return sequence.generated

    def load(self, now_ps: int) -> EngineLoad:
        """What the engine last reported, at the end of the last step that ended by now."""
        seen = self._seen
        stretch = self._stretch
        if stretch is None:
            seen = self._look()
        elif self._plan is None and (done := _steps_before(stretch, now_ps + 1)):
            seen = self._look()._replace(
                free=self._batch.cache.free - self._batch.pack.blocks_for(done)
            )
        usage = self._batch.cache.usage_at(seen.free)
        return EngineLoad(seen.running, seen.waiting, usage, *seen[3:])

    def _look(self) -> _Seen:
        batch = self._batch
        return _Seen(
            batch.running,
            batch.waiting,
            batch.cache.free,
            batch.prefix_queries,
            batch.prefix_hits,
            batch.preemptions,
        )

    # --- time ----------------------------------------------------------------------------------

    def _take_in(self, now_ps: int) -> None:
        """Obey what came by now; it takes its time before the next step."""
        inbox = self._inbox
        while inbox and inbox[0][0] <= now_ps:
            _, do, what = inbox.popleft()
            if do is _Do.ADD:
                self._batch.add(what)
                self._wait_ps += self._intake_ps
            elif do is _Do.ABORT:
                self._batch.abort(what)
            else:
                self._pace = what

    def _measure(self, now_ps: int, steps: int, work: StepWork) -> Stretch:
        """A stretch of so many steps of which the first does `work`; `end_ps` is still open."""
        pace = self._pace
        formula = self._formula
        if formula is None:
            fixed = self._step_time.step_ps(work) * pace // FULL_PACE
            context = rest = 0
        else:
            fixed = formula.fixed_ps(work.prefill_tokens, work.prefills, work.decodes)
            context = formula.context_ps
            rest = formula.attention_ps * work.attention // 2
            if pace != FULL_PACE:  # the coefficients, so that a run stays an arithmetic series
                fixed = fixed * pace // FULL_PACE
                context = context * pace // FULL_PACE
                rest = rest * pace // FULL_PACE
        return Stretch(
            start_ps=now_ps,
            steps=steps,
            end_ps=now_ps,
            wait_ps=self._wait_ps,
            first_ps=fixed + context * work.context + rest,
            growth_ps=context * work.decodes,
            noise=None if self._jitter is None else self._jitter.noise(self._steps, fixed),
        )


def _steps_before(stretch: Stretch, now_ps: int) -> int:
    """Steps of a stretch that end before now."""
    most = stretch.steps
    if now_ps > stretch.end_ps:
        return most
    left = now_ps - stretch.start_ps
    guess = (left - stretch.wait_ps) // max(1, stretch.first_ps)  # rarely off by more than one
    guess = min(max(guess, 0), most - 1)
    while guess < most - 1 and stretch.after(guess + 1) < left:
        guess += 1
    while guess > 0 and stretch.after(guess) >= left:
        guess -= 1
    return guess


def _work(plan: StepPlan, batch: Batch) -> StepWork:
    pack = batch.pack
    if plan.packed:
        decodes, context = pack.size, pack.context
    else:
        decodes = len(plan.decodes)
        context = sum(sequence.computed for sequence in plan.decodes)
    return StepWork(plan.prefill_tokens, len(plan.prefills), decodes, context, plan.attention)
