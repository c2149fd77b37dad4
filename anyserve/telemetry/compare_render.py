"""A comparison as a person reads it: a table with errors, and the distributions drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from anyserve.telemetry.compare import Comparison, Figure, Spread

_BINS: Final = 44
_BARS: Final = " ▁▂▃▄▅▆▇█"
_NAMES: Final = {
    "ttft": "first token", "tpot": "per output token", "e2e": "end to end",
    "queue": "waiting in queues", "itl": "between tokens",
}  # fmt: skip


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Draw it on a console."""
    first, second = comparison.kinds
    console.print(f"A  {comparison.first} ({first or 'unknown'})")
    console.print(f"B  {comparison.second} ({second or 'unknown'})")
    console.print()
    counts = [one for one in comparison.figures if not one.metric.endswith("_ms")]
    times = [one for one in comparison.figures if one.metric.endswith("_ms")]
    console.print(_table("", counts))
    console.print()
    console.print(_table("latency of completed requests, ms", times))
    for spread in comparison.spreads:
        console.print()
        _draw(spread, console)


def _table(title: str, figures: Sequence[Figure]) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for head in ("A", "B", "B against A"):
        table.add_column(head, justify="right")
    for one in figures:
        table.add_row(_label(one.metric), _number(one.first), _number(one.second), _error(one))
    return table


def _label(metric: str) -> str:
    name, _, statistic = metric.partition(".")
    if name in _NAMES and statistic.endswith("_ms"):
        return f"{_NAMES[name]} {statistic.removesuffix('_ms')}"
    return metric


def _number(value: float | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001 - means unknown everywhere
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:,.4g}"


def _error(one: Figure) -> str:
    if one.error is None:
        return "–"  # noqa: RUF001 - means unknown everywhere
    return "same" if one.error == 0 else f"{100 * one.error:+.1f}%"


def _draw(spread: Spread, console: Console) -> None:
    """Both distributions over one logarithmic axis."""
    values = [value for value in (*spread.first, *spread.second) if value > 0]
    if not values:
        return
    low, high = math.log(min(values)), math.log(max(values))
    console.print(
        f"{_NAMES[spread.metric]}, ms; the distributions differ by at most {spread.distance:.3f}"
    )
    for name, percentiles in (("A", spread.first), ("B", spread.second)):
        console.print(f"{name} {_bars(percentiles, low, high)}")
    left, right = f"{math.exp(low):.4g}", f"{math.exp(high):.4g}"
    console.print(f"  {left}{' ' * max(1, _BINS - len(left) - len(right))}{right}")


def _bars(percentiles: Sequence[float], low: float, high: float) -> str:
    bins = [0] * _BINS
    width = (high - low) or 1.0
    for value in percentiles:
        place = (math.log(value) - low) / width if value > 0 else 0.0
        bins[min(_BINS - 1, max(0, int(place * _BINS)))] += 1
    most = max(bins)
    return "".join(_BARS[math.ceil(count * (len(_BARS) - 1) / most)] for count in bins)
