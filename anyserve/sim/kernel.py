"""Virtual time: what is to happen, in order. Whole nanoseconds, and an order that never depends on
how many steps were taken to get there.

At one nanosecond engines come first, in the order of their replicas; then everything else in the
order in which it was asked for. Engines do not take part in that count, so it is the same whether a
stretch of steps is one entry here or many.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

Action = Callable[[Any], None]
Entry = tuple[Any, ...]
"""Time, place among those of the same time, what to call, and with what. Not told one by one:
mypyc would take every entry apart that is only to be moved or compared."""

_ENGINES: Final = 1 << 62
"""Places of engines are this much below zero: before all others."""
_PER_ENGINE: Final = 1 << 40
_KEPT: Final = 255
"""So many entries of the lane that were carried out stay in its list, which is cut then."""


def engine_lane(engine: int) -> int:
    """What `Kernel.engine_at` knows an engine by; those of lower numbers go first."""
    return engine * _PER_ENGINE - _ENGINES


class Kernel:
    """The clock and the agenda of one simulation.

    Args:
        lane_ns: the delay that most entries have. They need no heap: they fall due in the order in
            which they were made.
    """

    __slots__ = (
        "_engines", "_gone", "_heap", "_lane", "_lane_ns", "_places", "handled", "limit_ns", "now",
    )  # fmt: skip

    def __init__(self, lane_ns: int) -> None:
        self.now = 0
        self.handled = 0
        """Entries carried out so far."""
        self.limit_ns = 0
        """Nothing beyond this time is carried out."""
        self._lane_ns = lane_ns
        self._lane: list[Entry] = []
        self._gone = 0
        """Entries at the head of the lane that were carried out."""
        self._heap: list[Entry] = []
        self._places = 0
        self._engines = 0

    def at(self, time_ns: int, action: Action, argument: Any) -> None:
        """Call `action(argument)` at this time; now, if it has passed."""
        self._places = place = self._places + 1
        time_ns = max(time_ns, self.now)
        heappush(self._heap, (time_ns, place, action, argument))

    def soon(self, action: Action, argument: Any) -> None:
        """Call `action(argument)` after the usual delay."""
        self._places = place = self._places + 1
        self._lane.append((self.now + self._lane_ns, place, action, argument))

    def engine_at(self, time_ns: int, lane: int, action: Action, argument: Any) -> None:
        """The same for an engine, by its `engine_lane`: before all else at this nanosecond."""
        self._engines += 1
        heappush(self._heap, (time_ns, lane + self._engines, action, argument))

    def run(self, most: int) -> int:
        """Carry out what is due up to `limit_ns`, at most so many entries; returns how many."""
        heap, lane = self._heap, self._lane
        count = 0
        while count < most:
            gone = self._gone
            if gone < len(lane) and not (heap and heap[0] < lane[gone]):
                entry = lane[gone]
                if entry[0] > self.limit_ns:
                    break
                if gone < _KEPT:
                    self._gone = gone + 1
                else:
                    del lane[: gone + 1]
                    self._gone = 0
            elif heap and heap[0][0] <= self.limit_ns:
                entry = heappop(heap)
            else:
                break
            self.now = entry[0]
            count += 1
            entry[2](entry[3])
        self.handled += count
        return count

    def clear_lane(self) -> None:
        """Forget everything that waits for the usual delay."""
        self._lane.clear()
        self._gone = 0

    @property
    def next_ns(self) -> int | None:
        """When the next entry is due."""
        due = [entries[0][0] for entries in (self._heap, self._lane[self._gone :]) if entries]
        return min(due, default=None)
