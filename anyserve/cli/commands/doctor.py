"""`anyserve doctor`."""

from __future__ import annotations

import typer

from anyserve.cli.commands.options import AsJson
from anyserve.cli.session import session_of

_HELP = "Check this machine: what is there, what is not, how to mend it."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help=_HELP, short_help="Check this machine.")(doctor)


def doctor(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Check this machine."""
    from anyserve.cli.doctor.command import run_doctor  # noqa: PLC0415 - loaded when asked for

    raise typer.Exit(run_doctor(session_of(context), as_json=as_json))
