"""The random source that core is given: `random.Random` has this shape."""

from __future__ import annotations

from typing import Protocol


class Rng(Protocol):
    """What core asks of a random source."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def randrange(self, stop: int, /) -> int:
        """An int in [0, stop)."""
        ...
