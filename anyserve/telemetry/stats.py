"""Percentiles, stated once: linear interpolation between order statistics (numpy's default)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from anyserve.telemetry.request_groups import Times

NS_PER_MS = 1e6
_SUMMED: Final = 1 << 18
"""So many times of days each do not overflow a sum of 64 bits."""


class Distribution(msgspec.Struct, frozen=True):
    """What a set of times came to, in milliseconds; all None where there was nothing to measure."""

    count: int = 0
    mean_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None


def percentile(ordered: Sequence[float] | Times, q: float) -> float:
    """The `q` quantile (0..1) of an ascending, non-empty sequence, interpolated linearly."""
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


def distribution(ordered_ns: Times) -> Distribution:
    """The distribution of times given in nanoseconds, ascending."""
    count = len(ordered_ns)
    if not count:
        return Distribution()
    return _described(
        count, _sum(ordered_ns), float(ordered_ns[-1]), lambda q: percentile(ordered_ns, q)
    )


def _sum(times_ns: Any) -> float:
    """Exact for whole numbers; for others rounded once, so that it is the same everywhere."""
    if times_ns.dtype.kind == "f":
        return math.fsum(times_ns.tolist())
    return sum(
        int(times_ns[begin : begin + _SUMMED].sum()) for begin in range(0, len(times_ns), _SUMMED)
    )


def histogram_distribution(counts: Mapping[int, int]) -> Distribution:
    """The distribution of a histogram {upper bound in ns: count}.

    Each value counts as its bucket's upper bound, so no figure is better than the truth.
    """
    bounds = sorted(bound for bound, count in counts.items() if count > 0)
    if not bounds:
        return Distribution()
    below = list(accumulate(counts[bound] for bound in bounds))
    total = below[-1]
    return _described(
        total,
        sum(bound * counts[bound] for bound in bounds),
        bounds[-1],
        lambda q: _histogram_percentile(bounds, below, q),
    )


def _described(
    count: int, total_ns: float, max_ns: float, at: Callable[[float], float]
) -> Distribution:
    return Distribution(
        count=count,
        mean_ms=total_ns / count / NS_PER_MS,
        p50_ms=at(0.5) / NS_PER_MS,
        p90_ms=at(0.9) / NS_PER_MS,
        p95_ms=at(0.95) / NS_PER_MS,
        p99_ms=at(0.99) / NS_PER_MS,
        max_ms=max_ns / NS_PER_MS,
    )


def _histogram_percentile(bounds: Sequence[int], below: Sequence[int], q: float) -> float:
    place = q * (below[-1] - 1)
    index = int(place)
    low = _value_at(bounds, below, index)
    high = _value_at(bounds, below, min(index + 1, below[-1] - 1))
    return low + (high - low) * (place - index)


def _value_at(bounds: Sequence[int], below: Sequence[int], index: int) -> int:
    return next(bound for bound, count in zip(bounds, below, strict=True) if index < count)
