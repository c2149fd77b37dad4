"""What happened over a whole run, in a bounded number of equal stretches of time."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_S = 1_000_000_000
MOST_BUCKETS = 240


@dataclass(frozen=True, slots=True)
class SeriesView:
    """Requests offered and completed per bucket of `bucket_ns`, the first of which begins at
    `start_ns`."""

    start_ns: int = 0
    bucket_ns: int = NS_PER_S
    offered: tuple[int, ...] = ()
    completed: tuple[int, ...] = ()


class Series:
    """Counts from the first event on; when the buckets run out, two by two become one.

    The sums are exact at any age, and the memory is that of `MOST_BUCKETS` buckets.
    """

    def __init__(self) -> None:
        self._start_ns: int | None = None
        self._bucket_ns = NS_PER_S
        self._offered: list[int] = []
        self._completed: list[int] = []

    def begin(self, at_ns: int) -> None:
        """Count from here on; what was counted before belongs to another run."""
        self._start_ns = at_ns
        self._bucket_ns = NS_PER_S
        self._offered, self._completed = [], []

    def offer(self, at_ns: int, count: int = 1) -> None:
        """Requests were offered."""
        bucket = self._bucket(at_ns)
        self._offered[bucket] += count

    def complete(self, at_ns: int, count: int = 1) -> None:
        """Requests were completed."""
        bucket = self._bucket(at_ns)
        self._completed[bucket] += count

    def view(self) -> SeriesView:
        """As others see it."""
        return SeriesView(
            self._start_ns or 0, self._bucket_ns, tuple(self._offered), tuple(self._completed)
        )

    def _bucket(self, at_ns: int) -> int:
        if self._start_ns is None:
            self._start_ns = at_ns
        index = max(0, at_ns - self._start_ns) // self._bucket_ns
        while index >= MOST_BUCKETS:
            self._offered, self._completed = _halved(self._offered), _halved(self._completed)
            self._bucket_ns *= 2
            index //= 2
        missing = index + 1 - len(self._offered)
        if missing > 0:
            self._offered += [0] * missing
            self._completed += [0] * missing
        return index


def _halved(counts: list[int]) -> list[int]:
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
