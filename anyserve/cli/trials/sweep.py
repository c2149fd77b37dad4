"""`anyserve sweep`: a scenario over a grid of changes and several seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.cli.sim.prepare import duration_ns
from anyserve.cli.trials.following import follow
from anyserve.cli.trials.points import (
    Estimate,
    Point,
    drawn,
    estimate,
    grid,
    metric_of,
    overrides_of,
    parse_vary,
)
from anyserve.cli.trials.pool import Notebook, Outcome
from anyserve.errors import UsageError
from anyserve.sim.trial import Trial

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA: Final = "anyserve.sweep/1"
DEFAULT_METRICS: Final = (
    "ttft.p50_ms", "ttft.p99_ms", "tpot.mean_ms", "e2e.p99_ms", "throughput.completed_per_s",
    "requests.completed",
)  # fmt: skip
_BAR: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What `anyserve sweep` was asked for."""

    scenario: Path
    vary: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    seeds: int = 3
    first_seed: int = 0
    random: int | None = None
    jobs: int = 1
    duration: str | None = None
    out: Path | None = None
    csv: Path | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A point and what it came to, by metric; None where nothing was measured."""

    point: Point
    found: dict[str, Estimate | None]


def run_sweep(session: Session, options: SweepOptions) -> int:
    """Everything that `anyserve sweep` does; returns its exit code.

    Raises:
        AnyServeError: the scenario or an option is wrong.
    """
    varied = [parse_vary(text) for text in options.vary]
    if not varied:
        hint = "--vary 'cluster.replicas[s].count=[1, 2, 4]'"
        raise UsageError("nothing is varied", code="bad_vary", hint=hint)
    points = (
        grid(varied)
        if options.random is None
        else drawn(varied, options.random, options.first_seed)
    )
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cut_ns = duration_ns(options.duration)
    trials = {
        (point, seed): Trial(
            str(options.scenario), (*options.overrides, *overrides_of(point)), seed, cut_ns
        )
        for point in points
        for seed in seeds
    }
    for point in points:  # a wrong path is said before hours of work
        trials[point, options.first_seed].load()
    notebook = Notebook(options.out)
    outcomes = follow(session, list(trials.values()), notebook, options.jobs)
    metrics = options.metrics or DEFAULT_METRICS
    rows = [
        _row(point, [outcomes[trials[point, seed]] for seed in seeds], metrics) for point in points
    ]
    _show(session, options, rows, metrics)
    return ExitCode.OK


def _row(point: Point, outcomes: Sequence[Outcome], metrics: Sequence[str]) -> Row:
    found = {
        metric: estimate(metric_of(outcome.summary, metric) for outcome in outcomes)
        for metric in metrics
    }
    return Row(point, found)


def _show(
    session: Session, options: SweepOptions, rows: Sequence[Row], metrics: Sequence[str]
) -> None:
    if options.csv is not None:
        options.csv.write_text(_as_csv(rows, metrics), encoding="utf-8")
        session.diagnostics.say(f"wrote {options.csv}")
    if options.as_json:
        session.output.json(_as_object(options, rows))
        return
    session.output.draw(lambda console: _print(console, rows, metrics))


def _as_object(options: SweepOptions, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "scenario": str(options.scenario),
        "seeds": options.seeds,
        "points": [
            {
                "set": dict(row.point),
                "metrics": {
                    name: None
                    if one is None
                    else {"mean": one.mean, "ci95": one.half_width, "runs": one.count}
                    for name, one in row.found.items()
                },
            }
            for row in rows
        ],
    }


def _as_csv(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    paths = [path for path, _ in rows[0].point] if rows else []
    heads = [head for metric in metrics for head in (metric, f"{metric} ci95")]
    writer.writerow([*paths, *heads])
    for row in rows:
        cells: list[object] = [value for _, value in row.point]
        for metric in metrics:
            one = row.found[metric]
            cells += ["", ""] if one is None else [one.mean, one.half_width]
        writer.writerow(cells)
    return text.getvalue()


def _print(console: Console, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    from rich.table import Table  # noqa: PLC0415 - only where it is drawn

    table = Table(box=None, pad_edge=False)
    for path, _ in rows[0].point:
        table.add_column(path)
    for metric in metrics:
        table.add_column(metric, justify="right")
    for row in rows:
        cells = [value for _, value in row.point]
        table.add_row(*cells, *(shown(row.found[metric]) for metric in metrics))
    console.print(table)
    console.print()
    _plot(console, rows, metrics[0])


def _plot(console: Console, rows: Sequence[Row], metric: str) -> None:
    """A bar per point; `┤` and `├` mark the confidence interval."""
    console.print(f"{metric}, mean and 95 % confidence interval over seeds")
    known = [one for row in rows if (one := row.found[metric]) is not None]
    most = max((one.mean + (one.half_width or 0.0) for one in known), default=0.0) or 1.0
    width = max(len(_label(row.point)) for row in rows)
    for row in rows:
        one = row.found[metric]
        bar = "–" if one is None else _bar(one, most)  # noqa: RUF001 - means unknown everywhere
        console.print(f"{_label(row.point):<{width}}  {bar}")


def _bar(one: Estimate, most: float) -> str:
    cells = ["█" if place < round(_BAR * one.mean / most) else " " for place in range(_BAR + 1)]
    if one.half_width:
        low = round(_BAR * max(0.0, one.mean - one.half_width) / most)
        high = round(_BAR * (one.mean + one.half_width) / most)
        cells[low], cells[min(high, _BAR)] = "├", "┤"
    return "".join(cells).rstrip() + f" {one.mean:.4g}"


def _label(point: Point) -> str:
    return " ".join(value for _, value in point)


def shown(one: Estimate | None) -> str:
    """An estimate for people: `123 ± 4`."""
    if one is None:
        return "–"  # noqa: RUF001 - means unknown everywhere
    if one.half_width is None:
        return f"{one.mean:.4g}"
    return f"{one.mean:.4g} ± {float(f'{one.half_width:.2g}'):g}"  # never as 1.3e+02
