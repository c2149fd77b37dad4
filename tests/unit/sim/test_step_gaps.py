"""The histogram of an engine's steps, against plain counting."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from anyserve.core.engine.jitter import Jitter, Noise
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.stretch import PS_PER_NS, Stretch
from anyserve.core.origin.pending import bucket_ns
from anyserve.sim.step_gaps import Gaps, StepGaps

PS_PER_MS = 1_000_000_000
QUANTILES = (-0.2, 0.0, 0.3)


def stretch_of(
    steps: int, step_ps: int, growth_ps: int = 0, *, start_ps: int = 0, noise: Noise | None = None
) -> Stretch:
    """So many steps in a row, the first of which takes `step_ps`."""
    plan = StepPlan()
    plan.steps = steps
    stretch = Stretch(start_ps, plan, 0)
    stretch.first_ps, stretch.growth_ps, stretch.noise = step_ps, growth_ps, noise
    stretch.end_ps = start_ps + stretch.after(steps)
    return stretch


def gaps_one_by_one(stretch: Stretch, steps: int, before_ps: int) -> Counter[int]:
    """Its first steps, each looked at for itself."""
    ends = [before_ps, *(stretch.step_end_ps(number) for number in range(1, steps + 1))]
    gaps = (later - earlier for earlier, later in pairwise(ends))
    return Counter(bucket_ns(gap_ps // PS_PER_NS) for gap_ps in gaps)


def counted_since(steps: StepGaps, mark: int) -> Gaps:
    gaps: Gaps = {}
    steps.since(mark, gaps)
    return gaps


@pytest.mark.parametrize("noisy", [False, True])
def test_what_came_since_a_mark_is_what_was_counted_since(noisy: bool) -> None:
    rng, steps = random.Random(3), StepGaps()
    jitter = Jitter(QUANTILES, seed=5) if noisy else None
    marks: list[tuple[int, Counter[int]]] = []
    end_ps = 0
    for _ in range(400):
        step_ps = rng.choice([3, 8, 8, 8, 40, 700]) * PS_PER_MS + rng.randrange(PS_PER_MS)
        stretch = stretch_of(
            rng.choice([1, 1, 2, 60]),
            step_ps,
            rng.choice([0, 20_000, PS_PER_MS]),
            start_ps=end_ps + rng.choice([0, 0, 30 * PS_PER_MS]),
            noise=jitter.noise(rng.randrange(1000), step_ps) if jitter else None,
        )
        ended = rng.choice([stretch.steps, rng.randint(1, stretch.steps)])
        steps.add_stretch(stretch, ended, end_ps)
        for _, counted in marks:
            counted.update(gaps_one_by_one(stretch, ended, end_ps))
        end_ps = stretch.step_end_ps(ended)
        if rng.random() < 0.1:
            marks.append((steps.mark(), Counter()))

    assert len(marks) > 10
    for mark, counted in marks:
        assert counted_since(steps, mark) == dict(counted)


def test_the_last_step_of_a_stretch_may_have_stood_still() -> None:
    stretch = stretch_of(5, 8 * PS_PER_MS)
    stretch.late_ps = 900 * PS_PER_MS
    stretch.end_ps += stretch.late_ps
    steps = StepGaps()
    steps.add_stretch(stretch, 5, 0)

    assert counted_since(steps, 0) == {bucket_ns(8_000_000): 4, bucket_ns(908_000_000): 1}


def test_what_came_since_is_added_to_what_is_there() -> None:
    steps = StepGaps()
    steps.add_stretch(stretch_of(1, 8 * PS_PER_MS), 1, 0)
    mark = steps.mark()
    steps.add_stretch(stretch_of(2, 8 * PS_PER_MS), 2, 0)
    bound = bucket_ns(8_000_000)
    gaps: Gaps = {bound: 5}
    steps.since(mark, gaps)

    assert gaps == {bound: 7}


def test_a_copy_counts_on_alone() -> None:
    steps = StepGaps()
    steps.add_stretch(stretch_of(1, 8 * PS_PER_MS), 1, 0)
    mark, other = steps.mark(), steps.copy()
    other.add_stretch(stretch_of(3, 8 * PS_PER_MS), 3, 0)

    assert counted_since(steps, mark) == {}
    assert counted_since(other, mark) == {bucket_ns(8_000_000): 3}


def test_more_steps_than_a_digit_holds_do_not_matter_to_what_comes_after_a_mark() -> None:
    steps, end_ps, many = StepGaps(), 0, 1 << 25
    for step_ps in (3 * PS_PER_MS, 40 * PS_PER_MS, 700 * PS_PER_MS):
        stretch = stretch_of(many, step_ps, start_ps=end_ps)
        steps.add_stretch(stretch, many, end_ps)
        end_ps = stretch.end_ps

    mark = steps.mark()
    for step_ps, count in ((3 * PS_PER_MS, 5), (700 * PS_PER_MS, 1_000_000)):
        stretch = stretch_of(count, step_ps, start_ps=end_ps)
        steps.add_stretch(stretch, count, end_ps)
        end_ps = stretch.end_ps

    assert counted_since(steps, mark) == {
        bucket_ns(3_000_000): 5,
        bucket_ns(700_000_000): 1_000_000,
    }
