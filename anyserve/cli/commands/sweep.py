"""`anyserve sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, Overrides, ScenarioFile
from anyserve.cli.session import session_of

_HELP = """
Simulate a scenario over a grid of changes, each with several seeds, and compare.

\b
  anyserve sweep scenarios/mixed.yaml --vary 'cluster.delegation.limit=[0, 1]'
  anyserve sweep scenarios/burst.yaml --vary 'cluster.replicas[s1].concurrency=1..8' \\
      --metric ttft.p99_ms --metric requests.completed --jobs 2
  anyserve sweep scenarios/mixed.yaml --vary ... --out sweep.jsonl   go on where it stopped
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sweep", help=_HELP, short_help="Simulate many variants of a scenario.")(sweep)


def sweep(
    context: typer.Context,
    scenario: ScenarioFile,
    *,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=VALUES", help="[A, B, C] or 1..6; repeatable: a grid."),
    ] = None,
    overrides: Overrides = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="What to compare, as in summary.json; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each point.")] = 3,
    seed: Annotated[int, typer.Option(metavar="N", help="The first seed.")] = 0,
    random: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only so many points, at random.")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Processes at once.")] = 1,
    duration: Annotated[
        str | None, typer.Option(metavar="D", help="Let the traffic last so long.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep results; skip what stands there.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate many variants of a scenario."""
    from anyserve.compiled.use import switch_on  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    switch_on(session.environ)  # before the first import of what is compiled
    from anyserve.cli.trials.sweep import SweepOptions, run_sweep  # noqa: PLC0415

    options = SweepOptions(
        scenario=scenario,
        vary=tuple(vary or ()),
        overrides=tuple(overrides or ()),
        metrics=tuple(metric or ()),
        seeds=seeds,
        first_seed=seed,
        random=random,
        jobs=jobs,
        duration=duration,
        out=out,
        csv=csv,
        as_json=as_json,
    )
    raise typer.Exit(run_sweep(session, options))
