"""How many times of a recorded run say something of it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

ENOUGH: Final = 8
"""So many say something; fewer do not."""


def median_ns(times_ns: Sequence[float]) -> int | None:
    """The median in whole nanoseconds, not below 0; None where there are not enough."""
    return max(0, round(median(times_ns))) if len(times_ns) >= ENOUGH else None
