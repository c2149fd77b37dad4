"""The histogram of an engine's steps, against plain counting."""

from __future__ import annotations

import random
from collections import Counter

from anyserve.core.origin.pending import bucket_ns
from anyserve.sim.step_gaps import Gaps, StepGaps

NS_PER_MS = 1_000_000
PS_PER_NS = 1000


def test_what_came_since_a_mark_is_what_was_counted_since() -> None:
    rng, steps = random.Random(3), StepGaps()
    marks: list[tuple[int, Counter[int]]] = []
    for _ in range(400):
        gap_ns = rng.choice([3, 8, 8, 8, 40, 700]) * NS_PER_MS + rng.randrange(NS_PER_MS)
        count = rng.randrange(1, 4)
        steps.add(gap_ns * PS_PER_NS, count)
        for _, counted in marks:
            counted[bucket_ns(gap_ns)] += count
        if rng.random() < 0.1:
            marks.append((steps.mark(), Counter()))

    for mark, counted in marks:
        gaps: Gaps = {}
        steps.since(mark, gaps)
        assert gaps == dict(counted)


def test_what_came_since_is_added_to_what_is_there() -> None:
    steps = StepGaps()
    steps.add(8 * NS_PER_MS * PS_PER_NS)
    mark = steps.mark()
    steps.add(8 * NS_PER_MS * PS_PER_NS, 2)
    bound = bucket_ns(8 * NS_PER_MS)
    gaps: Gaps = {bound: 5}
    steps.since(mark, gaps)
    assert gaps == {bound: 7}


def test_a_copy_counts_on_alone() -> None:
    steps = StepGaps()
    steps.add(8 * NS_PER_MS * PS_PER_NS)
    mark, other = steps.mark(), steps.copy()
    other.add(8 * NS_PER_MS * PS_PER_NS, 3)
    mine: Gaps = {}
    others: Gaps = {}
    steps.since(mark, mine)
    other.since(mark, others)

    assert (mine, others) == ({}, {bucket_ns(8 * NS_PER_MS): 3})
