"""Counting the events that never arrived."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class _Stream:
    """The numbers seen from one life of one source, kept as the ranges that are still missing."""

    __slots__ = ("hole_ends", "hole_starts", "next_seq")

    def __init__(self) -> None:
        self.next_seq = 0
        self.hole_starts: list[int] = []
        self.hole_ends: list[int] = []

    @property
    def missing(self) -> int:
        return sum(self.hole_ends) - sum(self.hole_starts)

    def extend_to(self, seq: int) -> None:
        if seq > self.next_seq:
            self.hole_starts.append(self.next_seq)
            self.hole_ends.append(seq)
            self.next_seq = seq

    def add(self, seq: int) -> bool:
        if seq == self.next_seq:
            self.next_seq += 1
            return True
        if seq > self.next_seq:
            self.extend_to(seq)
            self.next_seq += 1
            return True
        return self._fill(seq)

    def close_below(self, seq: int) -> None:
        keep = bisect_left(self.hole_starts, seq)
        if keep and self.hole_ends[keep - 1] > seq:  # this hole goes on above
            keep -= 1
            self.hole_starts[keep] = seq
        del self.hole_starts[:keep], self.hole_ends[:keep]

    def _fill(self, seq: int) -> bool:
        at = bisect_right(self.hole_starts, seq) - 1
        if at < 0 or seq >= self.hole_ends[at]:
            return False
        start, end = self.hole_starts[at], self.hole_ends[at]
        parts = [(start, seq), (seq + 1, end)]
        kept = [part for part in parts if part[0] < part[1]]
        self.hole_starts[at : at + 1] = [part[0] for part in kept]
        self.hole_ends[at : at + 1] = [part[1] for part in kept]
        return True


class GapCounter:
    """Expects the numbers 0..n from each `(source, incarnation)`, in any order, and counts holes.

    A stream that ends early has no hole; `expect` tells the counter how long it should have been.
    """

    def __init__(self) -> None:
        self._streams: dict[tuple[str, int], _Stream] = {}

    def add(self, source: str, incarnation: int, seq: int) -> bool:
        """Note one event; False where it was seen before."""
        key = (source, incarnation)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream()
        return stream.add(seq)

    def expect(self, source: str, incarnation: int, count: int) -> None:
        """This life of this source is known to have sent `count` events."""
        self._streams.setdefault((source, incarnation), _Stream()).extend_to(count)

    def forgive(self, source: str, incarnation: int, next_seq: int) -> None:
        """What is missing below this number is known to mean nothing; it counts as seen."""
        stream = self._streams.setdefault((source, incarnation), _Stream())
        stream.extend_to(next_seq)
        stream.close_below(next_seq)

    @property
    def next_numbers(self) -> list[tuple[str, int, int]]:
        """Of each life of each source: the number after the highest that was seen."""
        return [(*key, stream.next_seq) for key, stream in self._streams.items()]

    @property
    def missing(self) -> int:
        """Events that were sent and not seen."""
        return sum(stream.missing for stream in self._streams.values())

    @property
    def missing_by_source(self) -> dict[tuple[str, int], int]:
        """Missing events of each `(source, incarnation)` that has any."""
        return {key: stream.missing for key, stream in self._streams.items() if stream.missing}

    @property
    def verdict(self) -> str:
        """`complete`, or `incomplete: n events missing`."""
        missing = self.missing
        return f"incomplete: {missing} events missing" if missing else "complete"
