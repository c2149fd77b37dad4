"""How fast a plan is played: the map between the plan's time and the clock's, which a person bends.

Open loop at every rate: a request is due at a moment that neither the cluster nor its answers can
move, and its latency counts from there. A change applies to what is not due yet: that keeps its
order and its distances, all divided by the factor. What waits through a pause is due later by the
length of the pause; nothing is made up for with a burst.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Stretch:
    """From `clock_ns` on, where the plan was at `plan_ns`, it ran `factor` times as fast."""

    clock_ns: int
    plan_ns: int
    factor: float


class Pace:
    """Plan time 0 is `start_ns` of a clock; the plan runs `factor` times as fast as the clock."""

    def __init__(self, start_ns: int) -> None:
        self._stretches = [_Stretch(start_ns, 0, 1.0)]

    @property
    def factor(self) -> float:
        """How fast it runs now; 0 while it stands still."""
        return self._stretches[-1].factor

    def plan_ns(self, now_ns: int) -> int:
        """Where the plan is now; 0 before its start."""
        last = self._stretches[-1]
        return last.plan_ns + round(max(0, now_ns - last.clock_ns) * last.factor)

    def due_ns(self, plan_ns: int) -> int | None:
        """When a moment of the plan comes or came on the clock; None: it stands still before it."""
        stretch = self._stretches[-1]
        for earlier in reversed(self._stretches[:-1]):
            if plan_ns > stretch.plan_ns:
                break
            stretch = earlier
        ahead_ns = plan_ns - stretch.plan_ns
        if ahead_ns <= 0:
            return stretch.clock_ns
        return None if stretch.factor == 0 else stretch.clock_ns + round(ahead_ns / stretch.factor)

    def change(self, factor: float, now_ns: int) -> None:
        """From now on run `factor` times as fast as planned; 0 stands still."""
        clock_ns = max(now_ns, self._stretches[-1].clock_ns)
        self._stretches.append(_Stretch(clock_ns, self.plan_ns(clock_ns), factor))
