"""Two runs side by side: the same figures of both, and how far the second is from the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from anyserve.core.events import Envelope
from anyserve.telemetry.request_groups import TIMES, groups_of, whole_of
from anyserve.telemetry.stats import NS_PER_MS, percentile
from anyserve.telemetry.tally import Tally

COMPARE_SCHEMA: Final = "anyserve.compare/1"
_STATISTICS: Final = ("mean_ms", "p50_ms", "p90_ms", "p99_ms")
_COUNTS: Final = (
    "requests.offered", "requests.completed", "requests.failed", "requests.rejected",
    "requests.expired", "delegations.total", "recoveries.total", "hops.mean",
    "throughput.completed_per_s", "throughput.output_tokens_per_s", "goodput.share", "duration_s",
)  # fmt: skip
_QUANTILES: Final = 101


class Figure(msgspec.Struct, frozen=True):
    """One figure of both runs. `error`: second over first, minus 1; None: that says nothing."""

    metric: str
    first: float | None
    second: float | None
    error: float | None


class Spread(msgspec.Struct, frozen=True):
    """The distributions of one kind of time, in milliseconds, as their 101 percentiles.

    `distance`: the largest difference of the two distribution functions (Kolmogorov-Smirnov), 0..1.
    """

    metric: str
    first: list[float]
    second: list[float]
    distance: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs compared. `first` and `second` name them, with what kind of run they were."""

    first: str
    second: str
    kinds: tuple[str | None, str | None]
    figures: list[Figure]
    spreads: list[Spread]
    schema: str = COMPARE_SCHEMA


def compare(
    names: tuple[str, str],
    summaries: tuple[Mapping[str, Any], Mapping[str, Any]],
    events: tuple[Iterable[Envelope], Iterable[Envelope]],
) -> Comparison:
    """Compare two runs: their summaries as data, and their events for the distributions."""
    first, second = summaries
    metrics = [*_COUNTS, *(f"{time}.{one}" for time in (*TIMES, "itl") for one in _STATISTICS)]
    figures = [_figure(metric, _at(first, metric), _at(second, metric)) for metric in metrics]
    times = tuple(_times(one) for one in events)
    spreads = [
        _spread(time, times[0][time], times[1][time])
        for time in TIMES
        if times[0][time] and times[1][time]
    ]
    return Comparison(
        first=names[0],
        second=names[1],
        kinds=(first.get("kind"), second.get("kind")),
        figures=[one for one in figures if one.first is not None or one.second is not None],
        spreads=spreads,
    )


def relative_error(first: float | None, second: float | None) -> float | None:
    """How far the second is from the first, as a share of it; 0 where both are 0."""
    if first is None or second is None:
        return None
    if first == 0:
        return 0.0 if second == 0 else None
    return second / first - 1


def _figure(metric: str, first: float | None, second: float | None) -> Figure:
    return Figure(metric, first, second, relative_error(first, second))


def _at(summary: Mapping[str, Any], path: str) -> float | None:
    value: Any = summary
    for word in path.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _times(events: Iterable[Envelope]) -> dict[str, list[float]]:
    tally = Tally()
    for envelope in events:
        tally.add(envelope)
    whole = whole_of(tally.requests, groups_of(tally.requests))
    return {kind: (whole.times(kind) / NS_PER_MS).tolist() for kind in TIMES}


def _spread(metric: str, first: list[float], second: list[float]) -> Spread:
    return Spread(metric, _percentiles(first), _percentiles(second), _distance(first, second))


def _percentiles(ordered: Sequence[float]) -> list[float]:
    return [round(percentile(ordered, n / (_QUANTILES - 1)), 3) for n in range(_QUANTILES)]


def _distance(first: Sequence[float], second: Sequence[float]) -> float:
    """The Kolmogorov-Smirnov statistic of two samples in ascending order."""
    most, one, other = 0.0, 0, 0
    while one < len(first) and other < len(second):
        value = min(first[one], second[other])
        while one < len(first) and first[one] <= value:
            one += 1
        while other < len(second) and second[other] <= value:
            other += 1
        most = max(most, abs(one / len(first) - other / len(second)))
    return most
