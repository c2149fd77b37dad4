"""Cumulative histograms that take many values at once, and the buckets of the standard names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

LATENCY_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0,
)  # fmt: skip
"""AnyServe's own: queues and whole requests, from a millisecond to the longest lifetime."""
TOKEN_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
"""AnyServe's own: times between tokens."""
HOPS: Final = (1.0, 2.0, 3.0, 4.0)

VLLM_TTFT_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
VLLM_TOKEN_S: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
VLLM_REQUEST_S: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
GEN_AI_REQUEST_S: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
GEN_AI_TTFT_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
GEN_AI_TOKEN_S: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
"""Buckets as vLLM and OpenTelemetry's conventions for generative AI name them, so that dashboards
made for those fit."""


class Histogram:
    """Counts per bucket and the sum of all values."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count `value`, `count` times. A bucket holds what is at most its upper bound."""
        self._counts[bisect_left(self._bounds, value)] += count
        self.total += value * count

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, values up to it), the last one `+Inf`, as Prometheus writes them."""
        found, below = [], 0
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            below += count
            found.append(("+Inf" if bound is None else repr(float(bound)), float(below)))
        return found


class Histograms:
    """One histogram for each combination of label values, under one name."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Histogram] = {}

    def of(self, *values: str) -> Histogram:
        """The histogram of these label values."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Histogram(self._bounds)
        return found

    def observe_ns(self, values: tuple[str, ...], duration_ns: float | None) -> None:
        """Count a duration, if there is one; a negative one (a clock was wrong) counts as 0."""
        if duration_ns is not None:
            self.of(*values).observe(max(0.0, duration_ns) / 1e9)

    def observe_all_ns(self, values: tuple[str, ...], counts: Mapping[int, int]) -> None:
        """Count a histogram {upper bound in ns: count}."""
        if counts:
            histogram = self.of(*values)
            for bound_ns, count in counts.items():
                histogram.observe(bound_ns / 1e9, count)

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Histogram]]:
        return iter(sorted(self._series.items()))
