"""Virtual time: what is to happen, in order. Whole nanoseconds, and an order that never depends on
how many steps were taken to get there.

At one nanosecond engines come first, in the order of their replicas; then everything else in the
order in which it was asked for. Engines do not take part in that count, so it is the same whether a
stretch of steps is one entry here or many.
"""

from __future__ import annotations

from typing import Any, Final

from anyserve.sim.agenda import Action, Agenda, Call, Doer, Entry, Line

_ENGINES: Final = 1 << 62
"""Places of engines are this much below zero: before all others."""
_PER_ENGINE: Final = 1 << 40
_SPAN_NS: Final = 1_000_000_000
"""In so much time an engine has some fifty entries."""


def engine_lane(engine: int) -> int:
    """What `Kernel.engine_at` knows an engine by; those of lower numbers go first."""
    return engine * _PER_ENGINE - _ENGINES


class Kernel:
    """The clock and the agenda of one simulation.

    Args:
        lane_ns: the delay that most entries have. They fall due in the order in which they were
            made.
        engines: how many there are, about: so much is on the agenda.
    """

    __slots__ = (
        "_agenda", "_engines", "_lane", "_lane_ns", "_places", "handled", "limit_ns", "now",
    )  # fmt: skip

    def __init__(self, lane_ns: int, engines: int = 1) -> None:
        self.now = 0
        self.handled = 0
        """Entries carried out so far."""
        self.limit_ns = 0
        """Nothing beyond this time is carried out."""
        self._lane_ns = lane_ns
        self._lane = Line()
        self._agenda = Agenda((_SPAN_NS // max(1, engines)).bit_length())
        self._places = 0
        self._engines = 0

    def at(self, time_ns: int, action: Action, argument: Any) -> None:
        """Call `action(argument)` at this time; now, if it has passed."""
        self.do_at(time_ns, Call(action), argument)

    def do_at(self, time_ns: int, doer: Doer, what: Any) -> Entry:
        """Have this done at this time; now, if it has passed. It may be withdrawn until then."""
        self._places += 1
        entry = Entry(max(time_ns, self.now), self._places, doer, what)
        self._agenda.put(entry)
        return entry

    def soon(self, doer: Doer, what: Any) -> None:
        """Have this done after the usual delay."""
        self._places += 1
        self._lane.put(Entry(self.now + self._lane_ns, self._places, doer, what))

    def engine_at(self, time_ns: int, lane: int, engine: Doer, what: Any) -> Entry:
        """Have an engine do this, by its `engine_lane`: before all else at this nanosecond. It may
        be withdrawn until then."""
        self._engines += 1
        entry = Entry(time_ns, lane + self._engines, engine, what)
        self._agenda.put(entry)
        return entry

    def run(self, most: int) -> int:
        """Carry out what is due up to `limit_ns`, at most so many entries; returns how many."""
        count = 0
        while count < most:
            entry = self._take()
            if entry is None:
                break
            self.now = entry.time_ns
            count += 1
            entry.doer.do(entry.what)
        self.handled += count
        return count

    def close(self) -> None:
        """Nothing more will be done: forget what was to be. Entries know of those that they are
        for, and compiled no collector knows of entries."""
        self._agenda.clear()
        self._lane.clear()

    def clear_lane(self) -> None:
        """Forget everything that waits for the usual delay."""
        self._lane.clear()

    @property
    def next_ns(self) -> int | None:
        """When the next entry is due."""
        due = [one.time_ns for one in (self._agenda.first, self._lane.first) if one is not None]
        return min(due, default=None)

    def _take(self) -> Entry | None:
        """The next entry, no longer in the agenda or the lane; None: nothing is due."""
        first, head = self._agenda.first, self._lane.first
        if head is not None and (first is None or head.goes_before(first)):
            if head.time_ns > self.limit_ns:
                return None
            self._lane.drop_first()
            return head
        if first is not None and first.time_ns <= self.limit_ns:
            return self._agenda.take()
        return None
