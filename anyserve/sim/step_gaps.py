"""How far apart the steps of an engine end: the inter-token latencies of all that it decodes.

Nothing is counted token by token. An engine counts its steps; an attempt marks where that count
stood when its first token was made, and what came since are the gaps between its tokens.

The count is one number, in which each bucket that was met has its own digit: a mark is that number,
and what came since is a difference. A digit of the count may well be carried over, one of a
difference cannot be: so many tokens no attempt has. Small digits make a number that a register
holds.
"""

from __future__ import annotations

from typing import Any, Final

from anyserve.core.engine.stretch import PS_PER_NS, Stretch
from anyserve.core.order import NEVER
from anyserve.core.origin.pending import BUCKETS_NS, bucket_place

_BITS: Final = 24
"""Of each digit: more tokens than any model's context has."""
_MASK: Final = (1 << _BITS) - 1
_NOT_MET: Final = -1
_PLACE_BITS: Final = len(BUCKETS_NS).bit_length()
_PLACE_MASK: Final = (1 << _PLACE_BITS) - 1

Gaps = dict[Any, int]
"""Steps by the bucket (`BUCKETS_NS`) of their distance from the one before. Compiled code would
make an object of a key at each look if it knew that it is a number."""
_BOUNDS: Final[tuple[Any, ...]] = BUCKETS_NS


class StepGaps:
    """A histogram of distances that only grows."""

    __slots__ = (
        "_begin_ps", "_count", "_end_ps", "_met", "_other_begin_ps", "_other_end_ps",
        "_other_shift", "_places", "_shift", "_shifts",
    )  # fmt: skip

    def __init__(self) -> None:
        self._count = 0
        """Steps by bucket: the one that was met first in the lowest bits."""
        # The buckets of the newest distances, the next one's most likely, too: steps that read
        # prompts have one, those that only decode another.
        self._begin_ps = self._end_ps = self._shift = 0
        self._other_begin_ps = self._other_end_ps = self._other_shift = 0
        self._places = 0
        """The buckets in the order in which they were met, a digit each."""
        self._met = 0
        """How many they are."""
        self._shifts = [_NOT_MET] * len(BUCKETS_NS)
        """Where the bits of each bucket begin."""

    def add_stretch(self, stretch: Stretch, steps: int, before_ps: int) -> None:
        """Count the first steps of a stretch. `before_ps`: when the step before them ended."""
        first_ps = stretch.step_end_ps(1)
        gap_ps = first_ps - before_ps
        if steps == 1:
            self._count += 1 << self._shift_of(gap_ps)
        else:
            first = 1 << self._shift_of(gap_ps)
            self._count += first + self._later_steps(stretch, steps, first_ps)

    def _later_steps(self, stretch: Stretch, steps: int, before_ps: int) -> int:
        if stretch.noise is None:  # each is a little longer than the one before
            shift = self._shift_of(stretch.first_ps + stretch.growth_ps)
            if self._shift_of(stretch.last_ps(steps)) == shift:
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
        fresh, places, rest = not gaps, self._places, self._count - mark
        while rest:
            steps = rest & _MASK
            if steps:
                bound = _BOUNDS[places & _PLACE_MASK]
                gaps[bound] = steps if fresh else gaps.get(bound, 0) + steps
            rest >>= _BITS
            places >>= _PLACE_BITS

    def copy(self) -> StepGaps:
        """Another one that counts on from here."""
        other = StepGaps()
        other._count = self._count
        other._places, other._met = self._places, self._met
        other._shifts = self._shifts[:]
        return other

    def _shift_of(self, gap_ps: int) -> int:
        if self._begin_ps <= gap_ps < self._end_ps:
            return self._shift
        if self._other_begin_ps <= gap_ps < self._other_end_ps:
            return self._other_shift
        self._other_begin_ps, self._other_end_ps = self._begin_ps, self._end_ps
        self._other_shift = self._shift
        self._begin_ps, self._end_ps, self._shift = self._find(gap_ps)
        return self._shift

    def _find(self, gap_ps: int) -> tuple[int, int, int]:
        """The bucket of a distance: where it begins, where the next one does, and its bits."""
        place = bucket_place(gap_ps // PS_PER_NS)
        shift = self._shifts[place]
        if shift == _NOT_MET:
            shift = self._shifts[place] = _BITS * self._met
            self._places |= place << (_PLACE_BITS * self._met)
            self._met += 1
        begin_ps = (BUCKETS_NS[place - 1] + 1) * PS_PER_NS if place else 0
        last = place == len(BUCKETS_NS) - 1
        end_ps = NEVER * PS_PER_NS if last else (BUCKETS_NS[place] + 1) * PS_PER_NS
        return begin_ps, end_ps, shift
