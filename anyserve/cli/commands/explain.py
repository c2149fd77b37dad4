"""`anyserve explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson
from anyserve.cli.session import session_of

_HELP = """
Explain a code: of an error, of a scenario's problem, or of a request's outcome.

\b
  anyserve explain AS-S021
  anyserve explain queue_full
  anyserve explain
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain", help=_HELP, short_help="Explain a code.")(explain)


def explain(
    context: typer.Context,
    code: Annotated[
        str | None, typer.Argument(metavar="CODE", help="The code; without it, all of them.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Explain a code."""
    from anyserve.cli.explaining import show_explanation  # noqa: PLC0415 - loaded when asked for

    show_explanation(session_of(context), code, as_json=as_json)
