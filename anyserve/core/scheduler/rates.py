"""How fast requests complete, and so how long a full queue takes to drain."""

from __future__ import annotations

import math
from typing import Final

HALF_LIFE_S: Final = 10.0
SHORTEST_MS, LONGEST_MS, UNKNOWN_MS = 100, 60_000, 1_000


class _Count:
    """Completions, decayed until `since_ns`."""

    __slots__ = ("since_ns", "value")

    def __init__(self, since_ns: int) -> None:
        self.value = 0.0
        self.since_ns = since_ns


class CompletionRate:
    """Completions per second and capability, as an exponentially decaying count.

    With decay constant k = ln 2 / half-life, a steady rate r holds the decayed count at r / k.
    """

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._decay = math.log(2) / HALF_LIFE_S

    def completed(self, capability: str, now: int) -> None:
        """One request of this capability is done."""
        count = self._counts.get(capability)
        if count is None:
            count = self._counts[capability] = _Count(now)
        count.value = self._decayed(count, now) + 1.0
        count.since_ns = now

    def wait_ms(self, capability: str, depth: int, now: int) -> int:
        """How long until `depth` waiting requests are served at the present rate, in milliseconds.

        1 s where nothing completed lately; within 0.1 s and 60 s always.
        """
        count = self._counts.get(capability)
        rate = 0.0 if count is None else self._decayed(count, now) * self._decay
        if rate <= 0.0:
            return UNKNOWN_MS
        return min(LONGEST_MS, max(SHORTEST_MS, math.ceil(1000 * depth / rate)))

    def _decayed(self, count: _Count, now: int) -> float:
        value = count.value * math.exp(-self._decay * (now - count.since_ns) / 1e9)
        return value if value > 1e-3 else 0.0  # noqa: PLR2004
