"""Steps under way, and when each of them ends."""

from __future__ import annotations

from typing import Final

from anyserve.core.engine.jitter import Noise
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.product import product
from anyserve.core.engine.sequence import NOBODY, Sequence

PS_PER_NS: Final = 1000


def to_ns(time_ps: int) -> int:
    """The first whole nanosecond that is not before `time_ps`."""
    return -(-time_ps // PS_PER_NS)


class Stretch:
    """Steps under way: one step of any kind, or several in which the same sequences decode.

    Only the last step of a stretch can end a sequence or complete a prompt. In each of its steps
    every sequence of `EngineModel.decoding` is given one token.
    """

    __slots__ = (
        "admitted", "end_ps", "finished", "first_ps", "growth_ps", "late_ps", "noise", "preempted",
        "prefilled", "start_ps", "steps", "wait_ps",
    )  # fmt: skip

    def __init__(self, start_ps: int, plan: StepPlan, wait_ps: int) -> None:
        self.start_ps = start_ps
        self.steps = plan.steps
        """At least 1; fewer once the stretch was cut."""
        self.wait_ps = wait_ps
        """Before the first step: the engine takes new sequences in, and its machine gets ready."""
        self.first_ps = 0
        """How long the first step takes after that."""
        self.growth_ps = 0
        """How much longer each step takes than the one before it."""
        self.noise: Noise | None = None
        """What each step differs by from that."""
        self.late_ps = 0
        """How much longer the last step took for standing still."""
        self.end_ps = start_ps
        """When the last step ends."""
        self.admitted: list[Sequence] = plan.admitted
        """Taken out of the queue at `start_ps` (for the first time, or after a preemption)."""
        self.preempted: list[Sequence] = plan.preempted
        """Put back into the queue at `start_ps`; they lose their blocks, not their tokens."""
        self.prefilled: list[Sequence] = NOBODY
        """Filled in by `finish`. Their last prompt token is computed: they were given one token at
        `end_ps`, their first one if `generated` is 1. (Embeddings: they are complete.)"""
        self.finished: list[Sequence] = NOBODY
        """Filled in by `finish`. Complete at `end_ps`, in the order of the batch; those of
        `prefilled` may be among them."""

    def step_end_ps(self, number: int) -> int:
        """When step `number` (from 1) ends. The last one's end is `end_ps`, even where it was
        delayed."""
        if number == self.steps:
            return self.end_ps
        return self.start_ps + self.after(number)

    def last_ps(self, steps: int) -> int:
        """How long the last of its first `steps` (at least 2) takes, where there is no noise."""
        late_ps = self.late_ps if steps == self.steps else 0
        return self.first_ps + product(self.growth_ps, steps - 1) + late_ps

    def after(self, steps: int) -> int:
        """Time from the start to the end of step number `steps` (from 1), undisturbed."""
        time_ps = self.wait_ps + self.first_ps
        if steps > 1:
            time_ps += product(self.first_ps, steps - 1)
            time_ps += product(self.growth_ps, steps * (steps - 1) // 2)
        if self.noise is not None:
            time_ps += self.noise.sum_ps(steps)
        return time_ps

    def ended_before(self, now_ps: int) -> int:
        """How many of the steps end before now."""
        if now_ps > self.end_ps:
            return self.steps
        left = now_ps - self.start_ps
        low, high = 0, self.steps  # step `low` ended before now, step `high` did not
        while high - low > 1:
            middle = (low + high) // 2
            if self.after(middle) < left:
                low = middle
            else:
                high = middle
        return low
