"""How far apart the steps of an engine end: the inter-token latencies of all that it decodes.

Nothing is counted token by token. An engine counts its steps; an attempt marks where that count
stood when its first token was made, and what came since are the gaps between its tokens.

The count is one number, in which each bucket that was met has its own bits: a mark is that number,
and what came since is a difference.
"""

from __future__ import annotations

from typing import Any, Final

from anyserve.core.engine.stretch import PS_PER_NS, Stretch
from anyserve.core.origin.pending import BUCKETS_NS, bucket_place

_NOT_MET: Final = -1
_BITS: Final = 40
"""Of each bucket: more steps than an engine makes in a thousand years."""
_MASK: Final = (1 << _BITS) - 1

Gaps = dict[Any, int]
"""Steps by the bucket (`BUCKETS_NS`) of their distance from the one before. Compiled code would
make an object of a key at each look if it knew that it is a number."""
_BOUNDS: Final[tuple[Any, ...]] = BUCKETS_NS


class StepGaps:
    """A histogram of distances that only grows."""

    __slots__ = ("_count", "_places", "_rows", "_usual")

    def __init__(self) -> None:
        self._count = 0
        """Steps by bucket: the one that was met first in the lowest bits."""
        self._places: list[int] = []
        """The buckets in that order."""
        self._rows = [_NOT_MET] * len(BUCKETS_NS)
        """Where each bucket is in it."""
        self._usual = 0
        """The bucket of the newest distance: the next one is often of it, too."""

    def add(self, gap_ps: int, steps: int = 1) -> None:
        """Count so many steps that ended so long after the one before."""
        self._add(self._bucket(gap_ps), steps)

    def add_stretch(self, stretch: Stretch, steps: int, before_ps: int) -> None:
        """Count the first steps of a stretch. `before_ps`: when the step before them ended."""
        first_ps = stretch.step_end_ps(1)
        self.add(first_ps - before_ps)
        if steps == 1:
            return
        if stretch.noise is None:  # each is a little longer than the one before
            bucket = self._bucket(stretch.first_ps + stretch.growth_ps)
            if bucket == self._bucket(stretch.last_ps(steps)):
                self._add(bucket, steps - 1)
                return
        before_ps = first_ps
        for number in range(2, steps + 1):
            end_ps = stretch.step_end_ps(number)
            self.add(end_ps - before_ps)
            before_ps = end_ps

    def add_to(self, gaps: Gaps, gap_ps: int) -> None:
        """Count one distance in another histogram, and not in this one."""
        bound = _BOUNDS[self._bucket(gap_ps)]
        gaps[bound] = gaps.get(bound, 0) + 1

    def mark(self) -> int:
        """Where the count stands, for `since`; not negative."""
        return self._count

    def since(self, mark: int, gaps: Gaps) -> None:
        """Add to `gaps` what was counted since."""
        fresh, row, rest = not gaps, 0, self._count - mark
        while rest:
            steps = rest & _MASK
            if steps:
                bound = _BOUNDS[self._places[row]]
                gaps[bound] = steps if fresh else gaps.get(bound, 0) + steps
            rest >>= _BITS
            row += 1

    def copy(self) -> StepGaps:
        """Another one that counts on from here."""
        other = StepGaps()
        other._count = self._count
        other._places = self._places[:]
        other._rows = self._rows[:]
        other._usual = self._usual
        return other

    def _add(self, bucket: int, steps: int) -> None:
        row = self._rows[bucket]
        if row == _NOT_MET:
            row = self._rows[bucket] = len(self._places)
            self._places.append(bucket)
        self._count += steps << (_BITS * row)

    def _bucket(self, gap_ps: int) -> int:
        self._usual = bucket_place(gap_ps // PS_PER_NS, self._usual)
        return self._usual
