"""What a replica has to do at which time: its heartbeat, and ends to be said again."""

from __future__ import annotations

from heapq import heappop, heappush

from anyserve.core.order import NEVER
from anyserve.core.replica.slot import Slot


class Due:
    """Times, each with the attempt whose end is to be said again then; None is the heartbeat.

    Nearly all ends are settled before they would be said again for the first time. They wait in a
    line, as each is due as long after it was said as every other; all else is in a heap.
    """

    __slots__ = ("_first", "_heap", "_heap_ns", "_last", "_pushes", "soonest_ns")

    def __init__(self) -> None:
        self.soonest_ns = NEVER
        """The first time of all."""
        self._heap_ns = NEVER
        """The first time in the heap."""
        self._first: Slot | None = None
        """The line of ends: each slot knows the one behind it."""
        self._last: Slot | None = None
        self._pushes = 0
        self._heap: list[tuple[int, int, Slot | None]] = []
        """Time, a running number, and what."""

    def plan(self, at_ns: int, slot: Slot | None) -> None:
        """Do this then."""
        self._pushes += 1
        heappush(self._heap, (at_ns, self._pushes, slot))
        self._heap_ns = min(self._heap_ns, at_ns)
        self.soonest_ns = min(self.soonest_ns, at_ns)

    def plan_end(self, at_ns: int, slot: Slot) -> None:
        """Say its end again then, for the first time: not before those planned so earlier."""
        slot.repeat_ns = at_ns
        if self._last is None:
            self._first = slot
            self.soonest_ns = min(self.soonest_ns, at_ns)
        else:
            self._last.behind = slot
        self._last = slot

    def pop(self) -> Slot | None:
        """What is due first, which there must be; it is planned no longer."""
        slot: Slot | None = self._first
        if slot is not None and slot.repeat_ns < self._heap_ns:
            self._pass()
        else:
            slot = heappop(self._heap)[2]
            self._heap_ns = self._heap[0][0] if self._heap else NEVER
        self._look_at_the_first()
        return slot

    def forget(self) -> None:
        """Plan those ends no longer that are the next ones and whose attempts were dropped."""
        slot = self._first
        if slot is None or not slot.dropped:
            return
        while slot is not None and slot.dropped:
            self._pass()
            slot = self._first
        self._look_at_the_first()

    def planned(self) -> list[tuple[int, Slot | None]]:
        """All that is planned, in order of time."""
        found = [(at_ns, slot) for at_ns, _, slot in sorted(self._heap, key=lambda one: one[:2])]
        slot = self._first
        while slot is not None:
            found.append((slot.repeat_ns, slot))
            slot = slot.behind
        return sorted(found, key=lambda one: one[0])

    def _look_at_the_first(self) -> None:
        self.soonest_ns = self._heap_ns
        if self._first is not None:
            self.soonest_ns = min(self._heap_ns, self._first.repeat_ns)

    def _pass(self) -> None:
        """Its first one leaves the line."""
        first = self._first
        assert first is not None, "nobody is in the line"
        self._first, first.behind = first.behind, None
        if self._first is None:
            self._last = None
