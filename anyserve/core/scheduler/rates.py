"""How fast requests complete, and so how long a full queue takes to drain."""

from __future__ import annotations

import math
from typing import Final

HALF_LIFE_S: Final = 10.0
SHORTEST_MS, LONGEST_MS, UNKNOWN_MS = 100, 60_000, 1_000


class CompletionRate:
    """Completions per second and capability, as an exponentially decaying count.

    With decay constant k = ln 2 / half-life, a steady rate r holds the decayed count at r / k.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}
        self._decay = math.log(2) / HALF_LIFE_S

    def completed(self, capability: str, now: int) -> None:
        """One request of this capability is done."""
        self._counts[capability] = (self._count(capability, now) + 1.0, now)

    def wait_ms(self, capability: str, depth: int, now: int) -> int:
        """How long until `depth` waiting requests are served at the present rate, in milliseconds.

        1 s where nothing completed lately; within 0.1 s and 60 s always.
        """
        rate = self._count(capability, now) * self._decay
        if rate <= 0.0:
            return UNKNOWN_MS
        return min(LONGEST_MS, max(SHORTEST_MS, math.ceil(1000 * depth / rate)))

    def _count(self, capability: str, now: int) -> float:
        count, since = self._counts.get(capability, (0.0, now))
        count *= math.exp(-self._decay * (now - since) / 1e9)
        return count if count > 1e-3 else 0.0  # noqa: PLR2004
