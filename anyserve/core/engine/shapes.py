"""What a CPU's library has prepared: its matrix products, for each number of tokens on its own.

vLLM's CPU build keeps oneDNN's primitives of the latest 32 numbers of tokens in each layer. A step
with another number makes them first (SmolLM2-135M: 6 ms of a step of 60).
"""

from __future__ import annotations

from typing import Final

_KEPT: Final = 32


class Shapes:
    """The numbers of tokens that were computed in one step lately."""

    def __init__(self, *known: int) -> None:
        self._known = dict.fromkeys(known)

    def is_new(self, tokens: int) -> bool:
        """Whether a step of so many tokens needs preparing; from then on it is known."""
        known = self._known
        new = tokens not in known
        if not new:
            del known[tokens]
        elif len(known) == _KEPT:
            del known[next(iter(known))]
        known[tokens] = None
        return new
