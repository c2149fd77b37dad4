"""`anyserve status` and `anyserve down`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson
from anyserve.cli.completion import complete_cluster
from anyserve.cli.session import session_of

_Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="Which cluster (default: the newest).",
        autocompletion=complete_cluster,
    ),
]
_STATUS = """
Show the clusters that run on this machine: replicas, processes, broker.

\b
  anyserve status
  anyserve status --watch
  anyserve status --json
"""
_DOWN = """
Stop a running cluster. Nothing to stop is not an error.

\b
  anyserve down
  anyserve down mixed --kill
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status", help=_STATUS, short_help="Show the clusters that run here.")(status)
    app.command("down", help=_DOWN, short_help="Stop a running cluster.")(down)


def status(
    context: typer.Context,
    name: _Name = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Again every 2 s, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what runs."""
    from anyserve.cli.status import show_status  # noqa: PLC0415 - loaded when asked for

    raise typer.Exit(show_status(session_of(context), name, watch=watch, as_json=as_json))


def down(
    context: typer.Context,
    name: _Name = None,
    *,
    kill: Annotated[bool, typer.Option("--kill", help="Do not wait for running requests.")] = False,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Give up after so many seconds.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Stop a cluster."""
    from anyserve.cli.stopping import run_down  # noqa: PLC0415 - loaded when asked for

    code = run_down(session_of(context), name, kill=kill, timeout_s=timeout, as_json=as_json)
    raise typer.Exit(code)
