"""What real steps differ by from the formula: draws from a recorded distribution, by step number.

Step n of an engine always gets the same draw, whether it was simulated alone or within a stretch of
many, and the sum over a stretch is one subtraction: the draws come from a table with running sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

_DRAWS: Final = 4096
UNIT: Final = 1 << 16
"""A draw counts in this part of the step's fixed time."""


class Jitter:
    """Relative deviations with the given quantiles and mean 0.

    Args:
        quantiles: Relative residuals (measured / formula - 1) at evenly spaced probabilities from 0
            to 1, ascending; at least two.
        seed: Where in the table an engine begins; engines with different seeds differ.
    """

    def __init__(self, quantiles: Sequence[float], seed: int) -> None:
        self._sums = _running_sums(tuple(quantiles))
        self._offset = seed % _DRAWS

    def noise(self, first: int, fixed_ps: int) -> Noise:
        """What steps from number `first` on, of this fixed time, differ by."""
        return Noise(self, first, fixed_ps // UNIT)

    def units(self, first: int, steps: int) -> int:
        """The sum of the draws for `steps` steps from number `first` on."""
        start = self._offset + first
        return self._sum(start + steps) - self._sum(start)

    def _sum(self, draws: int) -> int:
        rounds, rest = divmod(draws, _DRAWS)
        return rounds * self._sums[-1] + self._sums[rest]


class Noise(NamedTuple):
    """What the steps of one stretch differ by."""

    jitter: Jitter
    first: int
    unit_ps: int

    def sum_ps(self, steps: int) -> int:
        """Of the first `steps` of them together."""
        return self.unit_ps * self.jitter.units(self.first, steps)


@lru_cache(maxsize=64)
def _running_sums(quantiles: tuple[float, ...]) -> list[int]:
    """Sums of the first 0, 1, 2, ... draws. Draws are the quantiles at evenly spaced probabilities,
    in an order that looks random: multiples of an odd number modulo a power of two."""
    draws = [_quantile(quantiles, (place + 0.5) / _DRAWS) for place in range(_DRAWS)]
    mean = sum(draws) / _DRAWS
    sums = [0]
    state = 1
    order = []
    for _ in range(_DRAWS):
        state = (state * 1597 + 51749) % _DRAWS  # full period: 1597 = 1 mod 4, 51749 is odd
        order.append(state)
    for place in order:
        deviation = max(-0.5, draws[place] - mean)
        sums.append(sums[-1] + round(deviation * UNIT))
    return sums


def _quantile(quantiles: tuple[float, ...], at: float) -> float:
    position = at * (len(quantiles) - 1)
    place = min(int(position), len(quantiles) - 2)
    low, high = quantiles[place], quantiles[place + 1]
    return low + (high - low) * (position - place)
