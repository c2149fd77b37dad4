"""The one timer that a machine has, as entries of the agenda."""

from __future__ import annotations

from typing import Any, Protocol

from anyserve.core.order import NEVER
from anyserve.sim.agenda import Doer, Entry
from anyserve.sim.kernel import Kernel


class Sleeper(Protocol):
    """Who is woken."""

    def wake(self) -> None:
        """It is time for what the machine waits for."""
        ...


class Timer(Doer):
    """Wakes a machine when it asked for: the newest wish counts.

    Each answer that ends has its replica ask to be woken soon, to say that end again; a moment
    later it is settled, and the wish is the heartbeat's again, as it was before. So a later setting
    stays on the agenda under an earlier one, and the earlier one is withdrawn while it is at hand.
    """

    def __init__(self, kernel: Kernel, sleeper: Sleeper) -> None:
        self._kernel = kernel
        self._sleeper = sleeper
        self._wakes_ns = NEVER
        """When the machine wants to be woken."""
        self._first: Entry | None = None
        """The next to fall due: then, or before it."""
        self._under: Entry | None = None
        """A later one."""

    def ask(self, at_ns: int) -> None:
        """Wake it at this time, and at no other."""
        self._wakes_ns = at_ns
        first, under = self._first, self._under
        if first is None:
            self._first = self._set(at_ns)
        elif at_ns < first.time_ns:
            if under is None:
                self._under = first
            else:
                first.withdraw()
            self._first = self._set(at_ns)
        elif under is not None and under.time_ns <= at_ns:
            first.withdraw()
            self._first, self._under = under, None

    def do(self, what: Any) -> None:
        """See `Doer`: the first setting is due. Not every one is still wanted: it is put off
        then."""
        del what
        self._first, self._under = self._under, None
        if self._wakes_ns > self._kernel.now:
            self.ask(self._wakes_ns)
            return
        self._wakes_ns = NEVER
        self._sleeper.wake()

    def clear(self) -> None:
        """Wake nobody."""
        self._wakes_ns = NEVER
        for setting in (self._first, self._under):
            if setting is not None:
                setting.withdraw()
        self._first = self._under = None

    def _set(self, at_ns: int) -> Entry:
        return self._kernel.do_at(at_ns, self, None)
