"""When requests are sent: a rate that changes with the phases, evenly spaced or at random.

All processes place requests where the summed rate reaches certain values: 0, 1, 2, ... or the sums
of random draws. So a stream keeps its rhythm over the border of two phases, a slow stream
is not cut off by short phases, and a change of rate moves requests but redraws nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, log
from typing import Final

NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class RateStep:
    """A constant rate from `start_ns` to before `end_ns`, in phase number `phase`."""

    start_ns: int
    end_ns: int
    per_second: Fraction
    phase: int

    @property
    def mass(self) -> Fraction:
        """Requests expected in it."""
        return self.per_second * (self.end_ns - self.start_ns) / NS_PER_S


def exact_rate(rate: float) -> Fraction:
    """The number as it was written: 0.1 is one tenth."""
    return Fraction(str(rate))


def constant_arrivals(steps: Sequence[RateStep]) -> Iterator[tuple[int, int]]:
    """(time in ns, phase) of requests one unit of summed rate apart; the first comes at once."""
    done = Fraction(0)  # the summed rate at the start of this step
    count = 0
    for step in steps:
        if step.per_second == 0:
            continue
        # at = start + (count - done) * 1e9 / rate, as whole numbers over one denominator
        scale = NS_PER_S / step.per_second
        offset = (-done * scale) + step.start_ns
        denominator = scale.denominator * offset.denominator
        each = scale.numerator * offset.denominator
        base = offset.numerator * scale.denominator
        end = step.end_ns * denominator
        at = base + count * each
        while at < end:
            yield at // denominator, step.phase
            count += 1
            at += each
        done += step.mass


def poisson_arrivals(steps: Sequence[RateStep], rng: random.Random) -> Iterator[tuple[int, int]]:
    """(time in ns, phase) of a Poisson process with these rates."""
    return _renewals(steps, lambda: -log(1.0 - rng.random()))  # an exponential draw of mean 1


def _renewals(
    steps: Sequence[RateStep], draw_gap: Callable[[], float]
) -> Iterator[tuple[int, int]]:
    """Requests where the summed rate reaches the sums of gaps."""
    wanted = draw_gap()
    done = 0.0
    for step in steps:
        mass = float(step.mass)
        ns_per_unit = NS_PER_S / float(step.per_second) if step.per_second else inf
        while wanted < done + mass:
            at_ns = step.start_ns + int((wanted - done) * ns_per_unit)
            yield min(at_ns, step.end_ns - 1), step.phase
            wanted += draw_gap()
        done += mass


def gamma_arrivals(
    steps: Sequence[RateStep], rng: random.Random, cv: float
) -> Iterator[tuple[int, int]]:
    """(time in ns, phase) of a renewal process with these rates and gamma distributed gaps.

    `cv` is the gaps' coefficient of variation: shape 1/cv^2, mean 1 in units of summed rate.
    """
    shape = 1.0 / (cv * cv)
    return _renewals(steps, lambda: rng.gammavariate(shape, 1.0 / shape))


def bursty_arrivals(
    steps: Sequence[RateStep], rng: random.Random, on_ns: int, off_ns: int
) -> Iterator[tuple[int, int]]:
    """(time in ns, phase) of a Poisson process that is switched on and off (interrupted Poisson).

    Lengths of on and off are exponential with these means; while on, the rate is `(on + off) / on`
    times as high, so that its mean is the one asked for. It begins at a random point of the cycle.
    """
    boosted = [
        RateStep(step.start_ns, step.end_ns, step.per_second * Fraction(on_ns + off_ns, on_ns), n)
        for n, step in enumerate(steps)
    ]
    windows = _on_windows(steps[-1].end_ns if steps else 0, rng, on_ns, off_ns)
    cut = [
        RateStep(max(step.start_ns, start), min(step.end_ns, end), step.per_second, step.phase)
        for start, end in windows
        for step in boosted
        if max(step.start_ns, start) < min(step.end_ns, end)
    ]
    for at_ns, place in poisson_arrivals(cut, rng):
        yield at_ns, steps[place].phase


def _on_windows(
    end_ns: int, rng: random.Random, on_ns: int, off_ns: int
) -> Iterator[tuple[int, int]]:
    is_on = rng.random() * (on_ns + off_ns) < on_ns
    at_ns = 0
    while at_ns < end_ns:
        length = max(1, round(rng.expovariate(1.0) * (on_ns if is_on else off_ns)))
        if is_on:
            yield at_ns, at_ns + length
        at_ns += length
        is_on = not is_on


def expected_count(steps: Sequence[RateStep]) -> Fraction:
    """Requests expected over all steps; constant arrivals send this many, rounded up."""
    return sum((step.mass for step in steps), Fraction(0))
