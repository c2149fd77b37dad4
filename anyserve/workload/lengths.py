"""Drawing lengths in tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import repeat
from math import log

from anyserve.workload.schema import Length, LognormalLength, UniformLength


def draw_lengths(length: Length | None, rng: random.Random) -> Iterator[int]:
    """Endless lengths as declared; 0 where none is."""
    if length is None or isinstance(length, int):
        return repeat(length or 0)
    return _drawn(length, rng)


def _drawn(length: UniformLength | LognormalLength, rng: random.Random) -> Iterator[int]:
    if isinstance(length, UniformLength):
        low = length.uniform.min
        width = length.uniform.max - low + 1
        while True:
            yield low + int(rng.random() * width)
    shape = length.lognormal
    mu = log(shape.median)
    while True:
        drawn = round(rng.lognormvariate(mu, shape.sigma))
        yield min(max(drawn, shape.min), shape.max)
