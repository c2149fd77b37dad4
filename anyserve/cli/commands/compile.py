"""`anyserve compile`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson
from anyserve.cli.session import session_of
from anyserve.errors import UsageError

_HELP = """
Make machine code of the decision code, so that simulations take a fifth of their time.

\b
  anyserve compile            once, and again after an update: it takes about a minute
  anyserve compile --tune     a tenth faster still: two minutes, with GCC
  anyserve compile --check    whether simulations use it
  anyserve compile --remove   back to Python

Needs a C compiler and mypyc: pip install 'anyserve[compile]'. sim, sweep and plan use the build
while it is that of the very sources they run, and Python otherwise; the results are the same, byte
for byte. Your own policies and step-time models stay Python. ANYSERVE_COMPILED=0 switches it off.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compile", help=_HELP, short_help="Make simulations faster.")(compile_)


def compile_(
    context: typer.Context,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether there is a build that fits; 1: no.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Compile twice, the second time for what simulations do."),
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove all builds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make simulations faster."""
    from anyserve.cli import compiling  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    given = [name for name, on in (("check", check), ("tune", tune), ("remove", remove)) if on]
    if len(given) > 1:
        together = " and ".join(f"--{name}" for name in given)
        raise UsageError(f"{together} together", code="usage", hint="one of them")
    if check:
        raise typer.Exit(compiling.check(session, as_json=as_json))
    if remove:
        compiling.remove(session, as_json=as_json)
    else:
        compiling.build(session, tune=tune, as_json=as_json)
