"""`anyserve watch`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, ClusterName
from anyserve.cli.session import session_of

_HELP = """
Print the conversation of a running cluster over MQTT: who says what to whom.

\b
  anyserve watch
  anyserve watch --events
  anyserve watch --raw | jq .
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch", help=_HELP, short_help="Print the MQTT conversation of a cluster.")(watch)


def watch(
    context: typer.Context,
    *,
    cluster: ClusterName = None,
    raw: Annotated[bool, typer.Option("--raw", help="Topics and payloads as they are.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Also what processes report to observers.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after so many messages.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the MQTT conversation."""
    from anyserve.cli.watching import WatchOptions, run_watch  # noqa: PLC0415

    options = WatchOptions(cluster, raw=raw, events=events, count=count, as_json=as_json)
    raise typer.Exit(run_watch(session_of(context), options))
