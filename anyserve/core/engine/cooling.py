"""How much longer an engine's first step takes after a rest: its caches are cold by then."""

from __future__ import annotations

from typing import Final

from anyserve.core.engine.formula import interpolate

LONG_AGO_PS: Final = 1 << 60
"""Longer than any rest that was measured: 13 days."""


class Cooling:
    """Grows with the rest from nothing: linear between the points, constant beyond the last one.

    Args:
        points: (idle ps, ps that the step takes longer), ascending.
    """

    __slots__ = ("_points",)

    def __init__(self, points: tuple[tuple[int, int], ...]) -> None:
        self._points = ((0, 0), *points)

    def after(self, idle_ps: int) -> int:
        """What a step takes longer after so long without work."""
        longest_ps, _ = self._points[-1]
        return interpolate(self._points, min(idle_ps, longest_ps))
