"""What has been seen before, in memory that does not grow: watermarks with a sparse rest."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_FEW: Final = 16
"""So many numbers are not worth looking through."""
_ZERO: Final = 48
"""The code of the digit 0."""


class Ordinals:
    """Counts distinct ordinals 1, 2, 3 ... that arrive in any order, some repeatedly."""

    __slots__ = ("_above", "_below")

    def __init__(self) -> None:
        self._below = 0
        self._above: set[int] | None = None
        """Those beyond a gap, where there is one."""

    @property
    def count(self) -> int:
        """How many distinct ordinals were added."""
        return self._below if self._above is None else self._below + len(self._above)

    @property
    def watermark(self) -> int:
        """All ordinals up to this one were added."""
        return self._below

    @property
    def sparse(self) -> list[int]:
        """The ordinals above the watermark, ascending."""
        return sorted(self._above or ())

    def add(self, ordinal: int) -> bool:
        """Add one; False where it was there already."""
        above = self._above
        if ordinal <= self._below:
            return False
        if above is None:
            if ordinal == self._below + 1:
                self._below = ordinal
            else:
                self._above = {ordinal}
            return True
        if ordinal in above:
            return False
        above.add(ordinal)
        while self._below + 1 in above:
            self._below += 1
            above.discard(self._below)
        if not above:
            self._above = None
        return True


@lru_cache(maxsize=4096)
def split_request_id(request_id: str) -> tuple[str, int, int]:
    """`<origin>/<incarnation>/<n>` as its parts.

    Raises:
        ValueError: the id does not have this form.
    """
    origin, incarnation, number = request_id.split("/")
    return origin, int(incarnation), int(number)


@lru_cache(maxsize=4096)
def life_prefix(origin: str, incarnation: int) -> str:
    """What the ids of one life's requests begin with: one text for all who ask."""
    return f"{origin}/{incarnation}/"


def number_after(prefix: str, request_id: str) -> int:
    """The number that a request id ends with, where it begins with `prefix`; else -1."""
    if not request_id.startswith(prefix) or len(request_id) == len(prefix):
        return -1
    number = 0
    for place in range(len(prefix), len(request_id)):  # compiled, a third of what `int` takes
        digit = ord(request_id[place]) - _ZERO
        if not 0 <= digit <= 9:  # noqa: PLR2004
            return -1
        number = 10 * number + digit
    return number


class _Life:
    """What is over of one life of an origin."""

    __slots__ = ("below", "incarnation", "kept", "origin", "prefix", "rest")

    def __init__(self, origin: str, incarnation: int) -> None:
        self.origin = origin
        self.incarnation = incarnation
        self.prefix = life_prefix(origin, incarnation)
        """What the ids of its requests begin with."""
        self.below = 0
        """Everything below this number is over."""
        self.rest: set[int] = set()
        """What else is over, and some of what is below."""
        self.kept = 0
        """How many of the rest were not below when it was last looked through."""

    def add(self, number: int) -> None:
        """This one is over."""
        if number >= self.below:
            self.rest.add(number)

    def rise(self, below: int) -> None:
        """All below this number are over. Those of the rest go once they may be the most of it."""
        if below <= self.below:
            return
        self.below = below
        if len(self.rest) > 2 * self.kept + _FEW:
            self.rest = {number for number in self.rest if number >= below}
            self.kept = len(self.rest)

    def has(self, number: int) -> bool:
        """Whether it is over."""
        return number < self.below or number in self.rest


class SettledIds:
    """Requests that are over, per life of an origin, compacted by its `settled_below` watermark.

    An origin's older lives are forgotten when a newer one is heard of: their requests are over.
    """

    __slots__ = ("_lives", "_recent")

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._recent: _Life | None = None
        """The one that was asked for last; the next one asked for is likely of it, too."""

    def add(self, request_id: str) -> None:
        """One more is over."""
        life = self._recent
        number = -1 if life is None else number_after(life.prefix, request_id)
        if number < 0:
            origin, incarnation, number = split_request_id(request_id)
            life = self._life(origin, incarnation)
        if life is not None:
            life.add(number)

    def raise_watermark(self, origin: str, incarnation: int, below: int) -> None:
        """All of this life below `below` are over."""
        life = self._recent
        if life is None or life.incarnation != incarnation or life.origin != origin:
            life = self._life(origin, incarnation)
        if life is not None:
            life.rise(below)

    def __contains__(self, request_id: str) -> bool:
        if self._recent is not None:
            number = number_after(self._recent.prefix, request_id)
            if number >= 0:
                return self._recent.has(number)
        origin, incarnation, number = split_request_id(request_id)
        life = self._lives.get(origin)
        if life is None or incarnation > life.incarnation:
            return False
        return incarnation < life.incarnation or life.has(number)

    def _life(self, origin: str, incarnation: int) -> _Life | None:
        """This life, if it is the newest of its origin."""
        life = self._lives.get(origin)
        if life is None or incarnation > life.incarnation:
            life = self._lives[origin] = _Life(origin, incarnation)
        if life.incarnation != incarnation:
            return None
        self._recent = life
        return life
