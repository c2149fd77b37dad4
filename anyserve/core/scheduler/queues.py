"""Where requests wait: one queue per capability, in lanes of equal attributes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from anyserve.core.lifecycle import TicketState
from anyserve.core.scheduler.state import Lane, Ticket

Slot = tuple[tuple[int, int, str], int, Ticket]
"""Order, a running number that keeps tickets from being compared, and the ticket."""


class Queues:
    """Ordered waiting. A ticket that left is skipped when the heap meets it (lazy deletion)."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, list[Slot]] = {}
        self._depth: dict[str, int] = {}
        self._waiting = 0
        self._pushes = 0

    def depth(self, capability: str) -> int:
        """How many wait for this capability."""
        return self._depth.get(capability, 0)

    @property
    def empty(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._waiting

    def depths(self) -> dict[str, int]:
        """Waiting requests per capability that ever had one."""
        return dict(self._depth)

    def put(self, ticket: Ticket) -> None:
        """Queue a ticket under its current capability and order."""
        request = ticket.request
        lane = (request.capability, tuple(sorted(request.attributes.items())))
        ticket.lane = lane
        self._pushes += 1
        heapq.heappush(self._lanes.setdefault(lane, []), (ticket.order, self._pushes, ticket))
        self._depth[lane[0]] = self._depth.get(lane[0], 0) + 1
        self._waiting += 1

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it stands."""
        if ticket.lane is None:
            return
        lane, ticket.lane = ticket.lane, None
        self._depth[lane[0]] -= 1
        self._waiting -= 1
        slots = self._lanes[lane]
        if slots and slots[0][2] is ticket:
            heapq.heappop(slots)
        elif len(slots) > 64 and len(slots) > 4 * self._depth[lane[0]]:  # noqa: PLR2004
            self._lanes[lane] = [slot for slot in slots if slot[2].lane == lane]
            heapq.heapify(self._lanes[lane])

    def waiting(self, capability: str) -> Iterator[Ticket]:
        """All that wait for a capability, in no order."""
        found: dict[str, Ticket] = {}
        for lane, slots in self._lanes.items():
            if lane[0] == capability:
                found.update((slot[2].id, slot[2]) for slot in slots if _waits_in(slot[2], lane))
        return iter(found.values())

    def first(self, capability: str, fits: Callable[[Ticket], bool]) -> Ticket | None:
        """The best ticket over all lanes of a capability that `fits`."""
        best: Ticket | None = None
        for lane in [lane for lane in self._lanes if lane[0] == capability]:
            ticket = self._first_in(lane, fits)
            if ticket is not None and (best is None or ticket.order < best.order):
                best = ticket
        return best

    def _first_in(self, lane: Lane, fits: Callable[[Ticket], bool]) -> Ticket | None:
        slots = self._lanes[lane]
        passed: list[Slot] = []
        found: Ticket | None = None
        while slots:
            if not _waits_in(slots[0][2], lane):
                heapq.heappop(slots)
                continue
            if fits(slots[0][2]):
                found = slots[0][2]
                break
            passed.append(heapq.heappop(slots))
        for slot in passed:
            heapq.heappush(slots, slot)
        if not slots:
            del self._lanes[lane]
        return found


def _waits_in(ticket: Ticket, lane: Lane) -> bool:
    return ticket.lane == lane and ticket.state is TicketState.QUEUED
