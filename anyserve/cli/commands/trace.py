"""`anyserve trace`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, RunsDir
from anyserve.cli.completion import complete_run
from anyserve.cli.session import session_of

_HELP = """
Show where a request's time went, and why it went there.

REQUEST is its id, or the end of one: player/1764000000000/12 or just 12.

\b
  anyserve trace 12
  anyserve trace 12 --run 20261123-194501-mixed-7 --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("trace", help=_HELP, short_help="Show where a request's time went, and why.")(trace)


def trace(
    context: typer.Context,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="A request's id.")],
    *,
    run: Annotated[
        str,
        typer.Option(metavar="RUN", help="In which run.", autocompletion=complete_run),
    ] = "latest",
    runs: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a request's trace."""
    from anyserve.cli.tracing import show_trace  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    show_trace(session, request, run, session.runs(runs), as_json=as_json)
