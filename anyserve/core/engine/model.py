"""The engine as a driver sees it: sequences in, stretches of steps out. No clock of its own.

Two drivers use it. The simulator runs it in virtual time and lets it take many steps at once; the
`model` engine runs it in real time, step by step, and sleeps. Both see the same steps.

    engine.add(sequence, now_ps)            # may shorten the stretch that is under way
    stretch = engine.start(now_ps)          # None: nothing to do; else it ends at stretch.end_ps
    ...                                     # at engine.end_ps (it may have come closer by then)
    done = engine.finish()                  # who was given a token, who ended

Times are whole picoseconds (ps), so that a sum over many steps is exact: a stretch of k steps ends
at the same picosecond as k stretches of one step. A driver whose clock counts nanoseconds passes
`now_ns * 1000` in and rounds `end_ps` up (`to_ns`).

What a step sees: a sequence that was added at `t` takes part in the first step that starts at or
after `t`, and an abort at `t` acts before the first step that starts at or after `t`. As that is
decided by times and not by the order of calls, a driver may handle events of one nanosecond in any
order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from anyserve.core.engine.batch import BatchLimits, BatchScheduler, StepPlan
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.step_time import StepTimeModel

PS_PER_NS: Final = 1000


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
    """At least 1; fewer after the stretch was cut."""
    end_ps: int
    """When the last step ends."""
    admitted: list[Sequence] = field(default_factory=list)
    """Taken out of the queue at `start_ps` (for the first time, or again after a preemption)."""
    preempted: list[Sequence] = field(default_factory=list)
    """Put back into the queue at `start_ps`; they lose their blocks, not their tokens."""
    prefilled: list[Sequence] = field(default_factory=list)
    """Their last prompt token is computed: they are given one token at `end_ps`. A sequence with
    `generated == 1` after `finish` got its first one."""
    finished: list[Sequence] = field(default_factory=list)
    """Complete at `end_ps`, in the order of the batch; those of `prefilled` may be among them."""
    first_ps: int
    """How long the first step takes."""
    growth_ps: int = 0
    """How much longer each step takes than the one before it."""

    def step_end_ps(self, number: int) -> int:
        """When step `number` (from 1) ends. The last one's end is `end_ps`, even where it was
        delayed."""
        if number == self.steps:
            return self.end_ps
        triangle = number * (number - 1) // 2
        return self.start_ps + number * self.first_ps + triangle * self.growth_ps


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineLoad:
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


class EngineModel:
    """One engine: queue, batch, KV memory and the time that steps take."""

    def __init__(self, limits: BatchLimits, step_time: StepTimeModel) -> None:
        self._batch = BatchScheduler(limits)
        self._step_time = step_time
        self._stretch: Stretch | None = None
        self._plan = StepPlan()
        self._inbox: list[tuple[int, Sequence, bool]] = []
        self._load = EngineLoad()

    @property
    def busy(self) -> bool:
        """Whether a stretch is under way."""
        return self._stretch is not None

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs, what was added a moment ago included."""
        return bool(self._inbox or self._batch.running or self._batch.waiting)

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
        """The sequences that are given a token in every step of the stretch under way, `prefilled`
        ones aside; in the order of the batch."""
        prefilled = self._stretch.prefilled if self._stretch is not None else []
        return [
            seq for seq in self._plan.work if seq.computed == seq.total and seq not in prefilled
        ]

    def add(self, sequence: Sequence, now_ps: int) -> None:
        """Queue a sequence. A stretch under way is cut at its first step end at or after now."""
        self._inbox.append((now_ps, sequence, True))

    def abort(self, sequence: Sequence, now_ps: int) -> None:
        """Forget a sequence. It is in no `prefilled` or `finished` list of stretches that start at
        or after now; a stretch under way is cut as `add` does."""
        self._inbox.append((now_ps, sequence, False))

    def cut(self, now_ps: int) -> None:
        """Let the stretch under way end with the step under way, at its first step end at or after
        now: something about the steps that follow will change."""

    def delay(self, late_ps: int) -> None:
        """The step under way, the last one of its stretch, ends so much later: the engine stood
        still. Call `cut` when it stops, and this when it goes on."""
        assert self._stretch is not None, "no stretch is under way"
        self._stretch.end_ps += late_ps

    def start(self, now_ps: int, max_steps: int | None = None) -> Stretch | None:
        """Begin the next stretch; None if there is nothing to compute.

        Args:
            now_ps: When it begins: `end_ps` of the stretch before if the engine was busy.
            max_steps: At most so many steps; 1 is the exact mode. None: as many as have the same
                sequences decoding and nothing else to decide.
        """
        assert self._stretch is None, "the stretch before was not finished"
        del max_steps  # one step so far
        self._take_in(now_ps)
        if not (self._batch.running or self._batch.waiting):
            return None
        self._plan = plan = self._batch.schedule()
        duration = self._step_time.step_ns(plan.work.values()) * PS_PER_NS
        self._stretch = Stretch(
            start_ps=now_ps,
            steps=1,
            end_ps=now_ps + duration,
            first_ps=duration,
            admitted=plan.admitted,
            preempted=plan.preempted,
            prefilled=[
                seq
                for seq, chunk in plan.work.items()
                if not chunk.decode and seq.computed == seq.total
            ],
            finished=[
                seq
                for seq in plan.work
                if seq.computed == seq.total and seq.generated + bool(seq.room) >= seq.room
            ],
        )
        return self._stretch

    def finish(self) -> Stretch:
        """End the stretch under way: its tokens are generated, its finished sequences are gone."""
        stretch, self._stretch = self._stretch, None
        assert stretch is not None, "no stretch is under way"
        self._batch.commit(self._plan)
        self._load = self._read_load()
        return stretch

    def tokens_at(self, sequence: Sequence, now_ps: int) -> int:
        """Tokens that a running or waiting sequence has been given by now, the steps of the stretch
        under way that ended by now included. What a crash at this moment would leave."""
        del now_ps
        return sequence.generated

    def load(self, now_ps: int) -> EngineLoad:
        """What the engine last reported, at the end of the last step that ended by now."""
        del now_ps
        return self._load

    def _take_in(self, now_ps: int) -> None:
        later = []
        for entry in self._inbox:
            at_ps, sequence, add = entry
            if at_ps > now_ps:
                later.append(entry)
            elif add:
                self._batch.add(sequence)
            else:
                self._batch.remove(sequence)
        self._inbox = later

    def _read_load(self) -> EngineLoad:
        return EngineLoad(
            running=self._batch.running,
            waiting=self._batch.waiting,
            kv_usage=self._batch.kv_usage,
            preemptions=self._batch.preemptions,
        )
