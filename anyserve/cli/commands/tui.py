"""`anyserve tui`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import RunsDir
from anyserve.cli.completion import complete_run
from anyserve.cli.session import session_of
from anyserve.errors import UsageError

_HELP = """
Show a recorded run on the screens of `up --ui tui`: play, pause, seek, step.

\b
  anyserve tui --replay latest
  anyserve tui --replay 20261123 --at 0:25 --paused
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tui", help=_HELP, short_help="Show a run on screens; replay a recorded one.")(tui)


def tui(
    context: typer.Context,
    *,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="A recorded run: id, path or latest.", autocompletion=complete_run
        ),
    ] = None,
    runs: RunsDir = None,
    at: Annotated[
        str, typer.Option(metavar="TIME", help="Where to begin: 47, 1:05, 50%, end.")
    ] = "0",
    speed: Annotated[float, typer.Option(metavar="X", help="Times the pace it had.")] = 1.0,
    paused: Annotated[bool, typer.Option("--paused", help="Do not play at once.")] = False,
    theme: Annotated[str, typer.Option(metavar="NAME", help="Colours; T changes them.")] = "",
    hz: Annotated[
        float, typer.Option(metavar="N", min=0.2, max=20, help="Pictures a second.")
    ] = 4.0,
) -> None:
    """Show a run on screens."""
    from anyserve.cli.tui_replay import ReplayOptions, show_replay  # noqa: PLC0415

    if replay is None:
        hint = "anyserve tui --replay latest; anyserve runs list names them"
        raise UsageError("which run?", code="usage", hint=hint)
    session = session_of(context)
    options = ReplayOptions(replay, at=at, speed=speed, paused=paused, theme=theme, paint_hz=hz)
    raise typer.Exit(show_replay(session, session.runs(runs), options))
