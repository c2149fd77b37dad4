"""`anyserve plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, Overrides, ScenarioFile
from anyserve.cli.session import session_of

_HELP = """
Find the cheapest mix of replicas that keeps a promise, by simulation.

\b
  anyserve plan scenarios/mixed.yaml --slo 'ttft.p95_ms < 800' --replicas s1=1..6
  anyserve plan scenarios/mixed.yaml --slo 'goodput.share >= 0.99' --replicas s1=1..3 \\
      --replicas h1=1..2 --cost h1=4 --jobs 2

The fewest replicas are found by halving each range; the table shows what each cost buys.
Without --slo the scenario's own `slo` must be kept by 99 % of its requests. The exit code is 1
where no mix keeps the promises.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", help=_HELP, short_help="Find the cheapest replicas for a promise.")(plan)


def plan(
    context: typer.Context,
    scenario: ScenarioFile,
    *,
    slo: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPECTATION", help="METRIC OP VALUE, as in expect; repeatable."),
    ] = None,
    replicas: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A..B", help="How many of a group to try; repeatable."),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=X", help="What one replica costs: its GPUs, or 1."),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each mix.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Processes at once.")] = 1,
    duration: Annotated[
        str | None, typer.Option(metavar="D", help="Let the traffic last so long.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep results; skip what stands there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the cheapest replicas for a promise."""
    from anyserve.compiled.use import switch_on  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    switch_on(session.environ)  # before the first import of what is compiled
    from anyserve.cli.trials.plan import MixOptions, run_mix  # noqa: PLC0415

    options = MixOptions(
        scenario=scenario,
        slo=tuple(slo or ()),
        replicas=tuple(replicas or ()),
        costs=tuple(cost or ()),
        overrides=tuple(overrides or ()),
        seeds=seeds,
        first_seed=seed,
        jobs=jobs,
        duration=duration,
        out=out,
        as_json=as_json,
    )
    raise typer.Exit(run_mix(session, options))
