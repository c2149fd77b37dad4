"""Stacking spans that overlap onto as few lanes as hold them."""

from __future__ import annotations

from heapq import heappop, heappush


class Lanes:
    """Gives each span, in order of its start, the lowest lane that is free then."""

    def __init__(self) -> None:
        self._busy: list[tuple[int, int]] = []
        self._free: list[int] = []
        self.count = 0

    def take(self, start_ns: int, end_ns: int) -> int:
        """The lane of a span from `start_ns` to `end_ns`; spans must come in order of start."""
        while self._busy and self._busy[0][0] <= start_ns:
            heappush(self._free, heappop(self._busy)[1])
        if self._free:
            lane = heappop(self._free)
        else:
            lane, self.count = self.count, self.count + 1
        heappush(self._busy, (max(end_ns, start_ns + 1), lane))
        return lane
