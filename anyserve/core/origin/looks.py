"""When an origin has to look after which of its requests."""

from __future__ import annotations

import heapq
from collections.abc import Container

from anyserve.core.order import NEVER


class Looks:
    """Requests by the time at which to look after them. Many share a time, and most are over by
    then: they are passed over."""

    __slots__ = ("_at", "_times")

    def __init__(self) -> None:
        self._at: dict[int, list[str]] = {}
        """Requests by time, in the order in which they were planned."""
        self._times: list[int] = []
        """Heap of these times."""

    @property
    def soonest_ns(self) -> int:
        """The first time of all, that of a request which is over included."""
        return self._times[0] if self._times else NEVER

    def plan(self, at_ns: int, request_id: str) -> None:
        """Look after this request at this time."""
        ids = self._at.get(at_ns)
        if ids is None:
            self._at[at_ns] = [request_id]
            heapq.heappush(self._times, at_ns)
        else:
            ids.append(request_id)

    def first_ns(self, pending: Container[str]) -> int | None:
        """The first time at which a request is to be looked after that is still pending."""
        while self._times:
            ids = self._at[self._times[0]]
            while ids and ids[-1] not in pending:
                ids.pop()
            if ids:
                return self._times[0]
            del self._at[heapq.heappop(self._times)]
        return None

    def take(self, now: int) -> list[str]:
        """What is due by now, each once, in order."""
        due: dict[str, None] = {}
        while self._times and self._times[0] <= now:
            due.update(dict.fromkeys(self._at.pop(heapq.heappop(self._times))))
        return list(due)
