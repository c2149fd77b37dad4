"""What a sweep tries: `--vary PATH=[A, B, C]` to points, and the statistics of their outcomes."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import yaml

from anyserve.errors import UsageError

# Student's t, two-sided 95 %, by degrees of freedom; 1.96 beyond (Student 1908).
_T95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL: Final = 1.960


@dataclass(frozen=True, slots=True)
class Vary:
    """One thing that is varied: where in the scenario, and the values it takes."""

    path: str
    values: tuple[str, ...]


Point = tuple[tuple[str, str], ...]
"""(path, value) of each thing that is varied."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric over several seeds: its mean, and half the width of its 95 % confidence interval."""

    mean: float
    half_width: float | None
    count: int


def parse_vary(text: str) -> Vary:
    """`PATH=[1, 2, 4]`, `PATH=1,2,4`, `PATH=1..6` or `PATH=1..9..2`.

    Raises:
        UsageError: it is none of these.
    """
    path, equals, values = text.partition("=")
    found = _values(values.strip()) if equals and path.strip() else []
    if not found:
        hint = "write PATH=[A, B, C] or PATH=1..6, such as cluster.replicas[s].count=[1, 2, 4]"
        raise UsageError(f"'{text}' does not say what to vary", code="bad_vary", hint=hint)
    return Vary(path.strip(), tuple(found))


def _values(text: str) -> list[str]:
    bounds = text.split("..")
    if len(bounds) in {2, 3} and all(part.strip().lstrip("-").isdecimal() for part in bounds):
        low, high = int(bounds[0]), int(bounds[1])
        step = int(bounds[2]) if len(bounds) == 3 else 1  # noqa: PLR2004 - low..high..step
        return [str(value) for value in range(low, high + 1, max(1, step))]
    try:
        values = yaml.safe_load(text)
        if isinstance(values, str) and "," in values:
            values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        return []
    items = values if isinstance(values, list) else [values] if text else []
    return [_yaml(item) for item in items]


def _yaml(value: Any) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def grid(varied: Sequence[Vary]) -> list[Point]:
    """Every combination of values."""
    ways = [[(vary.path, value) for value in vary.values] for vary in varied]
    return [tuple(point) for point in product(*ways)]


def drawn(varied: Sequence[Vary], count: int, seed: int) -> list[Point]:
    """So many different combinations at random; all of them where there are no more."""
    points = grid(varied)
    if count >= len(points):
        return points
    return random.Random(seed).sample(points, count)  # noqa: S311 - not for secrets


def overrides_of(point: Point) -> tuple[str, ...]:
    """As `--set` takes them."""
    return tuple(f"{path}={value}" for path, value in point)


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean and confidence interval of independent runs; None without any."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    mean = statistics.fmean(known)
    if len(known) == 1:
        return Estimate(mean, None, 1)
    freedom = len(known) - 1
    t = _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL
    return Estimate(mean, t * statistics.stdev(known) / math.sqrt(len(known)), len(known))


def metric_of(summary: Mapping[str, Any], path: str) -> float:
    """A number of a summary by its dotted path; not a number where it is unknown.

    Raises:
        UsageError: the summary has nothing of this name.
    """
    value: Any = summary
    rest = path
    while rest:
        if not isinstance(value, Mapping):
            raise UsageError(f"no metric '{path}' in a summary", code="unknown_metric")
        # Names of capabilities have dots: the longest key that fits is meant.
        key = next(
            (name for name in _beginnings(rest) if name in value),
            None,
        )
        if key is None:
            hint = "a path of summary.json, such as ttft.p95_ms or requests.completed"
            raise UsageError(f"no metric '{path}' in a summary", code="unknown_metric", hint=hint)
        value, rest = value[key], rest[len(key) + 1 :]
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise UsageError(f"'{path}' is no number", code="unknown_metric")
    return float(value)


def _beginnings(path: str) -> list[str]:
    words = path.split(".")
    return [".".join(words[:count]) for count in range(len(words), 0, -1)]
