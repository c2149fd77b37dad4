"""How far apart the steps of an engine end: the inter-token latencies of all that it decodes.

Nothing is counted token by token. An engine counts its steps; an attempt marks where that count
stood when its first token was made, and what came since are the gaps between its tokens.

The count is one number, in which each bucket that was met has its own bits: a mark is that number,
and what came since is a difference.
"""

from __future__ import annotations

from typing import Any, Final

from anyserve.core.engine.stretch import PS_PER_NS, Stretch
from anyserve.core.order import NEVER
from anyserve.core.origin.pending import BUCKETS_NS, bucket_place

_BITS: Final = 40
"""Of each bucket: more steps than an engine makes in a lifetime."""
_MASK: Final = (1 << _BITS) - 1
_NOT_MET: Final = -1

Gaps = dict[Any, int]
"""Steps by the bucket (`BUCKETS_NS`) of their distance from the one before. Compiled code would
make an object of a key at each look if it knew that it is a number."""
_BOUNDS: Final[tuple[Any, ...]] = BUCKETS_NS


class StepGaps:
    """A histogram of distances that only grows."""

    __slots__ = (
        "_begin_ps", "_count", "_end_ps", "_places", "_shift", "_shifts", "_single_begin_ps",
        "_single_end_ps", "_single_shift",
    )  # fmt: skip

    def __init__(self) -> None:
        self._count = 0
        """Steps by bucket: the one that was met first in the lowest bits."""
        # The bucket of the newest distance: the next one is often of it, too. Steps that read
        # prompts, which are stretches alone, have another one than those that only decode.
        self._begin_ps = self._end_ps = self._shift = 0
        self._single_begin_ps = self._single_end_ps = self._single_shift = 0
        self._places: list[int] = []
        """The buckets in the order in which they were met."""
        self._shifts = [_NOT_MET] * len(BUCKETS_NS)
        """Where the bits of each bucket begin."""

    def add_stretch(self, stretch: Stretch, steps: int, before_ps: int) -> None:
        """Count the first steps of a stretch. `before_ps`: when the step before them ended."""
        first_ps = stretch.step_end_ps(1)
        gap_ps = first_ps - before_ps
        if steps == 1:
            self._count += 1 << self._shift_of_single(gap_ps)
        else:
            first = 1 << self._shift_of(gap_ps)
            self._count += first + self._later_steps(stretch, steps, first_ps)

    def _later_steps(self, stretch: Stretch, steps: int, before_ps: int) -> int:
        if stretch.noise is None:  # each is a little longer than the one before
            shift = self._shift_of(stretch.first_ps + stretch.growth_ps)
            if self._begin_ps <= stretch.last_ps(steps) < self._end_ps:
                return (steps - 1) << shift
        more = 0
        for number in range(2, steps + 1):
            end_ps = stretch.step_end_ps(number)
            more += 1 << self._shift_of(end_ps - before_ps)
            before_ps = end_ps
        return more

    def add_to(self, gaps: Gaps, gap_ps: int) -> None:
        """Count one distance in another histogram, and not in this one."""
        bound = _BOUNDS[bucket_place(gap_ps // PS_PER_NS)]
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
        other._shifts = self._shifts[:]
        return other

    def _shift_of(self, gap_ps: int) -> int:
        if not self._begin_ps <= gap_ps < self._end_ps:
            self._begin_ps, self._end_ps, self._shift = self._find(gap_ps)
        return self._shift

    def _shift_of_single(self, gap_ps: int) -> int:
        if not self._single_begin_ps <= gap_ps < self._single_end_ps:
            found = self._find(gap_ps)
            self._single_begin_ps, self._single_end_ps, self._single_shift = found
        return self._single_shift

    def _find(self, gap_ps: int) -> tuple[int, int, int]:
        """The bucket of a distance: where it begins, where the next one does, and its bits."""
        place = bucket_place(gap_ps // PS_PER_NS)
        shift = self._shifts[place]
        if shift == _NOT_MET:
            shift = self._shifts[place] = _BITS * len(self._places)
            self._places.append(place)
        begin_ps = (BUCKETS_NS[place - 1] + 1) * PS_PER_NS if place else 0
        last = place == len(BUCKETS_NS) - 1
        end_ps = NEVER * PS_PER_NS if last else (BUCKETS_NS[place] + 1) * PS_PER_NS
        return begin_ps, end_ps, shift
