"""Gamma and bursty arrivals: the mean rate holds, and the gaps are as uneven as asked."""

from __future__ import annotations

import random
import statistics
from fractions import Fraction
from itertools import pairwise

import pytest

from anyserve.workload.arrivals import RateStep, bursty_arrivals, gamma_arrivals

SECOND = 1_000_000_000
STEPS = [RateStep(0, 2_000 * SECOND, Fraction(5), 0)]


@pytest.mark.parametrize("cv", [0.25, 1.0, 3.0])
def test_gamma_gaps_have_the_mean_and_the_spread_asked_for(cv: float) -> None:
    times = [at for at, _ in gamma_arrivals(STEPS, random.Random(1), cv)]
    gaps = [after - before for before, after in pairwise(times)]

    assert len(times) == pytest.approx(10_000, rel=0.1)
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(cv, rel=0.1)


def test_bursts_come_and_go_and_keep_the_mean_rate() -> None:
    times = [at for at, _ in bursty_arrivals(STEPS, random.Random(2), 5 * SECOND, 15 * SECOND)]
    gaps = [after - before for before, after in pairwise(times)]

    assert len(times) == pytest.approx(10_000, rel=0.25)
    assert statistics.stdev(gaps) / statistics.fmean(gaps) > 2
    assert statistics.median(gaps) == pytest.approx(SECOND / 20 * 0.693, rel=0.15)
    assert times == sorted(times)
    assert all(0 <= at < 2_000 * SECOND for at in times)


def test_phases_change_the_rate_of_bursts_too() -> None:
    steps = [
        RateStep(0, 1_000 * SECOND, Fraction(1), 0),
        RateStep(1_000 * SECOND, 2_000 * SECOND, Fraction(9), 1),
    ]
    found = list(bursty_arrivals(steps, random.Random(3), SECOND, SECOND))
    count = sum(phase == 1 for _, phase in found)

    assert count / len(found) == pytest.approx(0.9, abs=0.03)
    assert all((at >= 1_000 * SECOND) is (phase == 1) for at, phase in found)
