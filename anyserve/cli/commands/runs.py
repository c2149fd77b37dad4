"""`anyserve runs ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, RunName, RunsDir
from anyserve.cli.completion import complete_run
from anyserve.cli.session import session_of


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(name="runs", rich_markup_mode=None)
    group.command("list", help="List recorded runs, newest last.")(list_)
    group.command("show", help="Show the report of a run again.")(show)
    group.command("rm", help="Delete runs.")(rm)
    app.add_typer(
        group, name="runs", help="List, show and delete recorded runs.", no_args_is_help=True
    )


def list_(context: typer.Context, *, runs: RunsDir = None, as_json: AsJson = False) -> None:
    """List runs."""
    from anyserve.cli.recorded import list_all  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    list_all(session, session.runs(runs), as_json=as_json)


def show(
    context: typer.Context,
    run: RunName = "latest",
    *,
    runs: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one run."""
    from anyserve.cli.recorded import show_one  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    show_one(session, session.runs(runs), run, as_json=as_json)


def rm(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Ids of runs.", autocompletion=complete_run),
    ],
    *,
    runs: RunsDir = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete runs."""
    from anyserve.cli.recorded import remove  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    remove(session, session.runs(runs), names, yes=yes, as_json=as_json)
