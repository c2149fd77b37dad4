"""`anyserve compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, RunsDir
from anyserve.cli.completion import complete_run
from anyserve.cli.session import session_of

_HELP = """
Compare two recorded runs: figures side by side, relative errors, distributions drawn.

\b
  anyserve compare LIVE SIM
  anyserve compare 20261127-0245 latest --json

A run is named by its id, the beginning of one, a path, or latest.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", help=_HELP, short_help="Compare two recorded runs.")(compare)


def compare(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="A run.", autocompletion=complete_run)],
    second: Annotated[
        str, typer.Argument(metavar="B", help="Another.", autocompletion=complete_run)
    ],
    *,
    runs: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare two recorded runs."""
    from anyserve.cli.comparing import compare_runs  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    compare_runs(session, session.runs(runs), first, second, as_json=as_json)
