"""Axes: round numbers that cover a range, and how to write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels; `log` for times that span several orders of magnitude."""

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; values beyond the range stay at its ends."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = 0.0 if high == low else (value - low) / (high - low)
        return self.start_px + share * (self.end_px - self.start_px)

    def ticks(self, count: int) -> Sequence[float]:
        """About `count` round values within the range."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high, count)


def linear(high: float, start_px: float, end_px: float) -> Scale:
    """From 0 to a round value at or above `high`."""
    high = max(high, 1e-9)
    step = _step(high / 4)
    return Scale(0.0, math.ceil(high / step - 1e-9) * step, start_px, end_px)


def logarithmic(low: float, high: float, start_px: float, end_px: float) -> Scale:
    """From a round value at or below `low` to one at or above `high`; both above 0."""
    low = max(low, 1e-3)
    return Scale(_round_log(low, up=False), _round_log(max(high, low * 1.01), up=True),
                 start_px, end_px, log=True)  # fmt: skip


def number(value: float) -> str:
    """A tick's label: no more digits than it needs."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:  # noqa: PLR2004 - five digits
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"  # noqa: PLR2004 - three digits


def milliseconds(value: float) -> str:
    """A tick's label for a time in ms."""
    return f"{number(value / 1000)} s" if value >= 1000 else f"{number(value)} ms"  # noqa: PLR2004


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))


def _ticks(low: float, high: float, count: int) -> list[float]:
    step = _step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    found = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in _STEPS[:3]
    ]
    ticks = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return ticks if len(ticks) <= 9 else [one for one in ticks if _is_decade(one)]  # noqa: PLR2004


def _is_decade(value: float) -> bool:
    return abs(math.log10(value) - round(math.log10(value))) < 1e-9  # noqa: PLR2004


def _round_log(value: float, *, up: bool) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    steps = [step * power for step in _STEPS]
    if up:
        return next(step for step in steps if step >= value * (1 - 1e-9))
    return next(step for step in reversed(steps) if step <= value * (1 + 1e-9))
