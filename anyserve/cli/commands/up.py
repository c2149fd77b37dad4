"""`anyserve up`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, Overrides, RunsDir, ScenarioFile
from anyserve.cli.session import session_of


class Ui(Enum):
    """What `up` shows while the cluster runs."""

    AUTO = "auto"
    TUI = "tui"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


class EngineKind(Enum):
    """Engines that `--engine` can put in the place of the scenario's."""

    AUTO = "auto"
    VLLM = "vllm"
    MODEL = "model"
    ECHO = "echo"


_HELP = """
Start the scenario's cluster, play its traffic, report, and take all of it down.

\b
  anyserve up scenarios/laptop.yaml
  anyserve up scenarios/mixed.yaml --seed 7 --duration 20s
  anyserve up scenarios/mixed.yaml --dry-run
  anyserve up scenarios/mixed.yaml --set cluster.delegation.limit=0 --entry any
  anyserve up scenarios/laptop.yaml --keep
  anyserve up scenarios/laptop.yaml --no-traffic --set ingress.http=8000

Ctrl-C once lets running requests finish, twice kills. The exit code says whether the scenario's
expectations were met.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", help=_HELP, short_help="Start a cluster, play its traffic, report.")(up)


def up(
    context: typer.Context,
    scenario: ScenarioFile,
    *,
    ui: Annotated[
        Ui | None,
        typer.Option(
            help="tui: a screen (on a terminal the default). plain: a status line every 5 s. "
            "json: every event as a line (setting: ui)."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the traffic and of policies.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run; start nothing.")
    ] = False,
    runs: RunsDir = None,
    duration: Annotated[
        str | None,
        typer.Option(metavar="D", help="Let the traffic last so long: 20s, 1m30s."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the cluster up after the traffic.")
    ] = False,
    entry: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="All requests enter here: scheduler, any, or a replica's id."
        ),
    ] = None,
    overrides: Overrides = None,
    engine: Annotated[
        EngineKind | None, typer.Option(help="Engine of every replica, instead of the scenario's.")
    ] = None,
    record_text: Annotated[
        bool | None,
        typer.Option("--record-text", help="Record prompts and answers (setting: record_text)."),
    ] = None,
    no_memory_check: Annotated[
        bool,
        typer.Option("--no-memory-check", help="Start even if the engines may not fit."),
    ] = False,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Start workers anew when the code of their app changes."),
    ] = False,
    no_traffic: Annotated[
        bool,
        typer.Option("--no-traffic", help="Play none: serve clients (ingress) until Ctrl-C."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a scenario's cluster and play its traffic."""
    from anyserve.cli.up.command import run_up  # noqa: PLC0415 - loaded when asked for
    from anyserve.cli.up.options import UpOptions  # noqa: PLC0415

    session = session_of(context)
    options = UpOptions(
        scenario=scenario,
        ui=str(session.setting("ui", None if ui is None else ui.value)),
        seed=int(str(session.setting("seed", seed))),
        dry_run=dry_run,
        runs=session.runs(runs),
        duration=duration,
        keep=keep,
        entry=entry,
        overrides=tuple(overrides or ()),
        engine=None if engine is None else engine.value,
        record_text=bool(session.setting("record_text", record_text)),
        check_memory=not no_memory_check and bool(session.setting("memory_check", None)),
        as_json=as_json,
        reload=reload,
        traffic=not no_traffic,
    )
    raise typer.Exit(run_up(session, options))
