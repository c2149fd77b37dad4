"""What a replica has to do at which time: its heartbeat, and ends to be said again."""

from __future__ import annotations

from collections.abc import Container
from heapq import heappop, heappush

from anyserve.core.order import NEVER
from anyserve.core.replica.slot import AttemptKey


class Due:
    """Times, each with the attempt whose end is to be said again then; None is the heartbeat.

    Nearly all ends are settled before they would be said again for the first time. They wait in a
    line, as each is due as long after it was said as every other; all else is in a heap.
    """

    __slots__ = ("_ends", "_ends_ns", "_heap", "_passed", "_pushes")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, AttemptKey | None]] = []
        """Time, a running number, and what."""
        self._pushes = 0
        self._ends: list[AttemptKey] = []
        self._ends_ns: list[int] = []
        self._passed = 0
        """How many at the beginning of these two are done with."""

    def plan(self, at_ns: int, key: AttemptKey | None) -> None:
        """Do this then."""
        self._pushes += 1
        heappush(self._heap, (at_ns, self._pushes, key))

    def plan_end(self, at_ns: int, key: AttemptKey) -> None:
        """Say this end again then, for the first time: not before those planned so earlier."""
        self._ends.append(key)
        self._ends_ns.append(at_ns)

    @property
    def soonest_ns(self) -> int:
        """The first time of all."""
        first_ns = self._heap[0][0] if self._heap else NEVER
        if self._passed < len(self._ends):
            first_ns = min(first_ns, self._ends_ns[self._passed])
        return first_ns

    def pass_over(self, there: Container[AttemptKey]) -> None:
        """Forget what comes first as long as its attempt is not there any more."""
        ends = self._ends
        while self._passed < len(ends) and ends[self._passed] not in there:
            self._pass()
        heap = self._heap
        while heap and (key := heap[0][2]) is not None and key not in there:
            heappop(heap)

    def pop(self) -> AttemptKey | None:
        """What is due first, which there must be; it is planned no longer."""
        at_ns = self._heap[0][0] if self._heap else NEVER
        if self._passed < len(self._ends) and self._ends_ns[self._passed] < at_ns:
            key = self._ends[self._passed]
            self._pass()
            return key
        return heappop(self._heap)[2]

    def planned(self) -> list[tuple[int, AttemptKey | None]]:
        """All that is planned, in order of time."""
        ends = zip(self._ends_ns[self._passed :], self._ends[self._passed :], strict=True)
        rest = [(at_ns, key) for at_ns, _, key in sorted(self._heap, key=lambda one: one[:2])]
        return sorted([*rest, *ends], key=lambda one: one[0])

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
