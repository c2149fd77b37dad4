"""`anyserve sim`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, Overrides, RunsDir
from anyserve.cli.completion import complete_run, complete_scenario
from anyserve.cli.session import session_of
from anyserve.errors import UsageError


class Ui(Enum):
    """What `sim` shows while it computes."""

    PLAIN = "plain"
    TUI = "tui"
    JSON = "json"
    NONE = "none"


_HELP = """
Play a scenario in virtual time: the same decisions, on a model of network and engines.

\b
  anyserve sim scenarios/mixed.yaml
  anyserve sim scenarios/faults.yaml --check
  anyserve sim scenarios/sim/fleet.yaml --set 'cluster.replicas[heavy].count=20' --seed 7
  anyserve sim --from-run latest --set cluster.delegation.limit=0

Equal scenario and seed give the same events, byte for byte. The run directory, the report and the
exit code are those of a live run: trace, runs and tui work on it.
"""


def _ui(name: str) -> str:
    """What the setting means here: screens only where they are asked for."""
    return Ui.PLAIN.value if name == "auto" else name


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sim", help=_HELP, short_help="Play a scenario in virtual time.")(sim)


def sim(
    context: typer.Context,
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCENARIO", help="A scenario file.", autocompletion=complete_scenario
        ),
    ] = None,
    *,
    from_run: Annotated[
        str | None,
        typer.Option(
            "--from-run",
            metavar="RUN",
            help="Play a recorded run's arrivals again, under its scenario and --set.",
            autocompletion=complete_run,
        ),
    ] = None,
    match_speed: Annotated[
        bool | None,
        typer.Option(
            "--match-speed/--no-match-speed",
            help="With --from-run: engines as fast as they were in it (default: where they were "
            "real).",
        ),
    ] = None,
    ui: Annotated[
        Ui | None,
        typer.Option(
            help="plain: a progress bar. tui: screens of the run, once it is computed. "
            "json: every event as a line (setting: ui)."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seed of traffic, policies and network."),
    ] = None,
    runs: RunsDir = None,
    duration: Annotated[
        str | None,
        typer.Option(metavar="D", help="Let the traffic last so long: 20s, 1m30s."),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="All requests enter here: scheduler, any, or a replica's id."
        ),
    ] = None,
    overrides: Overrides = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the invariants over all events.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Step every engine one by one: slower, same events.")
    ] = False,
    sample: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Record the events of this share of requests."
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Play a scenario in virtual time."""
    from anyserve.compiled.use import switch_on  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    switch_on(session.environ)  # before the first import of what is compiled
    from anyserve.cli.sim.command import run_sim  # noqa: PLC0415
    from anyserve.cli.sim.options import SimOptions  # noqa: PLC0415

    if (scenario is None) == (from_run is None):
        hint = "anyserve sim SCENARIO, or anyserve sim --from-run RUN"
        raise UsageError("name a scenario, or a run with --from-run", code="usage", hint=hint)
    if match_speed is not None and from_run is None:
        hint = "name the run with --from-run"
        raise UsageError("--match-speed needs a run", code="usage", hint=hint)
    options = SimOptions(
        scenario=scenario or Path(),
        from_run=from_run,
        match_speed=match_speed,
        ui=_ui(str(session.setting("ui", None if ui is None else ui.value))),
        seed=int(str(session.setting("seed", seed))),
        runs=session.runs(runs),
        duration=duration,
        entry=entry,
        overrides=tuple(overrides or ()),
        check=check,
        exact=exact,
        sample=sample,
        as_json=as_json,
    )
    raise typer.Exit(run_sim(session, options))
