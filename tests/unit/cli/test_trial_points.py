"""What a sweep varies, and the statistics of what comes out."""

from __future__ import annotations

import math

import pytest

from anyserve.cli.trials.points import (
    drawn,
    estimate,
    grid,
    metric_of,
    overrides_of,
    parse_vary,
)
from anyserve.errors import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=[1, 2, 4]", ("1", "2", "4")),
        ("a.b=1..3", ("1", "2", "3")),
        ("a.b=0..10..5", ("0", "5", "10")),
        ("a.b=[true, false]", ("true", "false")),
        ("a.b=[least-loaded, power-of-two]", ("least-loaded", "power-of-two")),
        ("a.b=7", ("7",)),
        ("a.b=1,2", ("1", "2")),
        ("a.b=least-loaded, power-of-two", ("least-loaded", "power-of-two")),
    ],
)
def test_values_are_a_list_or_a_range(text: str, values: tuple[str, ...]) -> None:
    assert parse_vary(text).values == values


@pytest.mark.parametrize("text", ["a.b", "=3", "a.b=", "a.b=[1, 2"])
def test_what_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not say what to vary"):
        parse_vary(text)


def test_a_grid_is_every_combination() -> None:
    points = grid([parse_vary("x=1..2"), parse_vary("y=[a, b]")])

    assert [overrides_of(point) for point in points] == [
        ("x=1", "y=a"),
        ("x=1", "y=b"),
        ("x=2", "y=a"),
        ("x=2", "y=b"),
    ]


def test_a_random_choice_is_one_of_the_grid_and_depends_on_the_seed_alone() -> None:
    varied = [parse_vary("x=1..20"), parse_vary("y=1..20")]

    assert drawn(varied, 9, 3) == drawn(varied, 9, 3)
    assert len(set(drawn(varied, 9, 3))) == 9
    assert set(drawn(varied, 9, 3)) <= set(grid(varied))


def test_the_confidence_interval_is_students() -> None:
    found = estimate([10.0, 12.0, 14.0])

    assert found is not None
    assert found.mean == 12
    assert found.half_width == pytest.approx(4.303 * 2 / math.sqrt(3))
    assert estimate([]) is None
    alone = estimate([3.0])
    assert alone is not None
    assert alone.half_width is None


def test_metrics_are_found_through_names_with_dots() -> None:
    summary = {"capabilities": {"decode.heavy": {"ttft": {"p50_ms": 3.5, "mean_ms": None}}}}

    assert metric_of(summary, "capabilities.decode.heavy.ttft.p50_ms") == 3.5
    assert math.isnan(metric_of(summary, "capabilities.decode.heavy.ttft.mean_ms"))
    with pytest.raises(UsageError, match="no metric"):
        metric_of(summary, "ttft.p50_ms")
