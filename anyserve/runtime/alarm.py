"""Waking a machine: what the driver of one keeps about its only timer."""

from __future__ import annotations

from anyserve.core.order import NEVER


class Alarm:
    """When a machine is to be woken, and when the timer goes off that does so: then, or before.

    Most often what a timer was set for is done with by the time it goes off, and the machine asks
    for a later one. The timer stays as it is then, and is set again when it goes off: this costs
    less than to set it each time, or to wake a machine that has nothing due.
    """

    __slots__ = ("rings_ns", "wakes_ns")

    def __init__(self) -> None:
        self.wakes_ns = NEVER
        """When the machine wants to be woken."""
        self.rings_ns = NEVER
        """When the timer goes off; `NEVER`: none is set."""

    def ask(self, at_ns: int) -> bool:
        """The machine is to be woken at this time and at no other. Whether the timer must be set
        to `rings_ns` for it."""
        self.wakes_ns = at_ns
        if at_ns >= self.rings_ns:
            return False
        self.rings_ns = at_ns
        return True

    def ring(self, now: int) -> bool:
        """The timer went off. Whether to wake the machine; if not, set the timer to `rings_ns`."""
        if now < self.wakes_ns:
            self.rings_ns = self.wakes_ns
            return False
        self.clear()
        return True

    def clear(self) -> None:
        """There is no timer, and nothing to be woken for."""
        self.wakes_ns = self.rings_ns = NEVER
