"""`anyserve tui`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from anyserve.cli.commands.options import ClusterName, RunsDir
from anyserve.cli.completion import complete_run
from anyserve.cli.session import Session, session_of
from anyserve.collecting import no_collecting
from anyserve.errors import UsageError

_HELP = """
Show a running cluster on screens, or a recorded run: play, pause, seek, step.

\b
  anyserve tui                               the newest cluster, to look at
  anyserve tui --attach --cluster mixed --control
  anyserve tui --replay latest
  anyserve tui --replay 20261123 --at 0:25 --paused
  anyserve tui --web                         in a browser on this machine

It never stops a cluster. Without --control nothing can be done to it from here.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tui", help=_HELP, short_help="Show a cluster or a recorded run on screens.")(tui)


def tui(
    context: typer.Context,
    *,
    attach: Annotated[
        bool, typer.Option("--attach", help="Join a running cluster (the default).")
    ] = False,
    cluster: ClusterName = None,
    control: Annotated[
        bool, typer.Option("--control", help="Allow what changes it: drain, kill, rate, send.")
    ] = False,
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
    web: Annotated[
        bool, typer.Option("--web", help="Serve it to a browser, on this machine only.")
    ] = False,
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="With --web: where.")
    ] = 8000,
    owned: Annotated[bool, typer.Option("--owned", hidden=True)] = False,
) -> None:
    """Show a cluster or a run on screens."""
    session = session_of(context)
    if replay is not None and (attach or control or cluster is not None):
        hint = "--replay shows a recorded run; leave out --attach, --cluster and --control"
        raise UsageError("a cluster or a recorded run, not both", code="usage", hint=hint)
    if web:
        raise typer.Exit(_serve(session, context.params, port))
    with no_collecting():
        if replay is None:
            from anyserve.cli.attaching import AttachOptions, show_live  # noqa: PLC0415

            wanted = AttachOptions(
                cluster=cluster, control=control, owned=owned, theme=theme, paint_hz=hz
            )
            raise typer.Exit(show_live(session, wanted))
        from anyserve.cli.tui_replay import ReplayOptions, show_replay  # noqa: PLC0415

        options = ReplayOptions(replay, at=at, speed=speed, paused=paused, theme=theme, paint_hz=hz)
        raise typer.Exit(show_replay(session, session.runs(runs), options))


def _serve(session: Session, params: Mapping[str, Any], port: int) -> int:
    """Serve the screen that these options ask for."""
    from anyserve.cli.web import serve_web  # noqa: PLC0415 - an extra

    if params["control"]:
        hint = "leave one of them out; anyserve control does the same from a shell"
        raise UsageError("a browser only looks: --web or --control", code="usage", hint=hint)
    words = ["--theme", params["theme"], "--hz", str(params["hz"])]
    if params["replay"] is None:
        words += ["--attach", *(("--cluster", params["cluster"]) if params["cluster"] else ())]
    else:
        words += ["--replay", params["replay"], "--runs", str(session.runs(params["runs"]))]
        words += ["--at", params["at"], "--speed", str(params["speed"])]
        words += ["--paused"] * params["paused"]
    return serve_web(session, words, port)
