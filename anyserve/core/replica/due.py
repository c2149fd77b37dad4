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

    __slots__ = ("_ends", "_ends_ns", "_heap", "_heap_ns", "_passed", "_pushes", "soonest_ns")

    def __init__(self) -> None:
        self.soonest_ns = NEVER
        """The first time of all."""
        self._heap: list[tuple[int, int, Slot | None]] = []
        """Time, a running number, and what."""
        self._heap_ns = NEVER
        """The first time in it."""
        self._pushes = 0
        self._ends: list[Slot] = []
        self._ends_ns: list[int] = []
        self._passed = 0
        """How many at the beginning of these two are done with: not all."""

    def plan(self, at_ns: int, slot: Slot | None) -> None:
        """Do this then."""
        self._pushes += 1
        heappush(self._heap, (at_ns, self._pushes, slot))
        self._heap_ns = min(self._heap_ns, at_ns)
        self.soonest_ns = min(self.soonest_ns, at_ns)

    def plan_end(self, at_ns: int, slot: Slot) -> None:
        """Say its end again then, for the first time: not before those planned so earlier."""
        self._ends.append(slot)
        self._ends_ns.append(at_ns)
        self.soonest_ns = min(self.soonest_ns, at_ns)

    def pop(self) -> Slot | None:
        """What is due first, which there must be; it is planned no longer."""
        slot: Slot | None
        if self._ends and self._ends_ns[self._passed] < self._heap_ns:
            slot = self._ends[self._passed]
            self._pass()
        else:
            slot = heappop(self._heap)[2]
            self._heap_ns = self._heap[0][0] if self._heap else NEVER
        self._look_at_the_first()
        return slot

    def forget(self) -> None:
        """Plan those ends no longer that are the next ones and whose attempts were dropped."""
        if not self._ends or not self._ends[self._passed].dropped:
            return
        while self._ends and self._ends[self._passed].dropped:
            self._pass()
        self._look_at_the_first()

    def planned(self) -> list[tuple[int, Slot | None]]:
        """All that is planned, in order of time."""
        ends = zip(self._ends_ns[self._passed :], self._ends[self._passed :], strict=True)
        rest = [(at_ns, slot) for at_ns, _, slot in sorted(self._heap, key=lambda one: one[:2])]
        return sorted([*rest, *ends], key=lambda one: one[0])

    def _look_at_the_first(self) -> None:
        self.soonest_ns = self._heap_ns
        if self._ends:
            self.soonest_ns = min(self._heap_ns, self._ends_ns[self._passed])

    def _pass(self) -> None:
        self._passed += 1
        if self._passed == len(self._ends):
            self._ends.clear()
            self._ends_ns.clear()
            self._passed = 0
        elif self._passed > 64 and 2 * self._passed > len(self._ends):  # noqa: PLR2004
            del self._ends[: self._passed]
            del self._ends_ns[: self._passed]
            self._passed = 0
