"""What has been seen before, in memory that does not grow: watermarks with a sparse rest."""

from __future__ import annotations

from functools import lru_cache


class Ordinals:
    """Counts distinct ordinals 1, 2, 3 ... that arrive in any order, some repeatedly."""

    __slots__ = ("_above", "_below")

    def __init__(self) -> None:
        self._below = 0
        self._above: set[int] = set()

    @property
    def count(self) -> int:
        """How many distinct ordinals were added."""
        return self._below + len(self._above)

    @property
    def watermark(self) -> int:
        """All ordinals up to this one were added."""
        return self._below

    @property
    def sparse(self) -> list[int]:
        """The ordinals above the watermark, ascending."""
        return sorted(self._above)

    def add(self, ordinal: int) -> bool:
        """Add one; False where it was there already."""
        if ordinal <= self._below or ordinal in self._above:
            return False
        self._above.add(ordinal)
        while self._below + 1 in self._above:
            self._below += 1
            self._above.discard(self._below)
        return True


@lru_cache(maxsize=4096)
def split_request_id(request_id: str) -> tuple[str, int, int]:
    """`<origin>/<incarnation>/<n>` as its parts.

    Raises:
        ValueError: the id does not have this form.
    """
    origin, incarnation, number = request_id.split("/")
    return origin, int(incarnation), int(number)


class SettledIds:
    """Requests that are over, per life of an origin, compacted by its `settled_below` watermark.

    An origin's older lives are forgotten when a newer one is heard of: their requests are over.
    """

    __slots__ = ("_lives",)

    def __init__(self) -> None:
        self._lives: dict[str, tuple[int, int, set[int]]] = {}

    def add(self, request_id: str) -> None:
        """One more is over."""
        origin, incarnation, number = split_request_id(request_id)
        life = self._life(origin, incarnation)
        if life is not None and number >= life[1]:
            life[2].add(number)

    def raise_watermark(self, origin: str, incarnation: int, below: int) -> None:
        """All of this life below `below` are over."""
        life = self._life(origin, incarnation)
        if life is None or below <= life[1]:
            return
        rest = life[2]
        if below - life[1] < len(rest):
            rest.difference_update(range(life[1], below))
        else:
            rest = {number for number in rest if number >= below}
        self._lives[origin] = (incarnation, below, rest)

    def __contains__(self, request_id: str) -> bool:
        origin, incarnation, number = split_request_id(request_id)
        life = self._lives.get(origin)
        if life is None or incarnation > life[0]:
            return False
        if incarnation < life[0]:
            return True
        return number < life[1] or number in life[2]

    def _life(self, origin: str, incarnation: int) -> tuple[int, int, set[int]] | None:
        life = self._lives.get(origin)
        if life is None or incarnation > life[0]:
            life = (incarnation, 0, set())
            self._lives[origin] = life
        return life if life[0] == incarnation else None
