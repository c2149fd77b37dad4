"""What a replica has to do at which time: its heartbeat, and ends to be said again."""

from __future__ import annotations

from heapq import heappop, heappush

from anyserve.core.order import NEVER
from anyserve.core.replica.slot import AttemptKey


class Due:
    """Times, each with the attempt whose end is to be said again then; None is the heartbeat.

    Nearly all ends are settled before they would be said again for the first time. They wait in a
    line, as each is due as long after it was said as every other; all else is in a heap.
    """

    __slots__ = ("_ends", "_ends_ns", "_heap", "_passed", "_pushes", "soonest_ns")

    def __init__(self) -> None:
        self.soonest_ns = NEVER
        """The first time of all."""
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
        self.soonest_ns = min(self.soonest_ns, at_ns)

    def plan_end(self, at_ns: int, key: AttemptKey) -> None:
        """Say this end again then, for the first time: not before those planned so earlier."""
        self._ends.append(key)
        self._ends_ns.append(at_ns)
        self.soonest_ns = min(self.soonest_ns, at_ns)

    @property
    def first(self) -> AttemptKey | None:
        """The attempt whose end is due first of all; None: the heartbeat is, or nothing."""
        if self._an_end_is_first():
            return self._ends[self._passed]
        return self._heap[0][2] if self._heap else None

    def pop(self) -> AttemptKey | None:
        """What is due first, which there must be; it is planned no longer."""
        if self._an_end_is_first():
            key: AttemptKey | None = self._ends[self._passed]
            self._pass()
        else:
            key = heappop(self._heap)[2]
        soonest_ns = self._heap[0][0] if self._heap else NEVER
        if self._passed < len(self._ends):
            soonest_ns = min(soonest_ns, self._ends_ns[self._passed])
        self.soonest_ns = soonest_ns
        return key

    def planned(self) -> list[tuple[int, AttemptKey | None]]:
        """All that is planned, in order of time."""
        ends = zip(self._ends_ns[self._passed :], self._ends[self._passed :], strict=True)
        rest = [(at_ns, key) for at_ns, _, key in sorted(self._heap, key=lambda one: one[:2])]
        return sorted([*rest, *ends], key=lambda one: one[0])

    def _an_end_is_first(self) -> bool:
        if self._passed == len(self._ends):
            return False
        return not self._heap or self._ends_ns[self._passed] < self._heap[0][0]

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
