"""All commands in one application."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from anyserve.cli.commands import (
    calibrate,
    cluster,
    compare,
    config,
    control,
    doctor,
    explain,
    export,
    models,
    nodes,
    plan,
    runs,
    scenario,
    send,
    sim,
    sweep,
    trace,
    tui,
    up,
    watch,
)
from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import session_of

_HELP: Final = """
Run capability-oriented LLM serving systems on this machine, and see every hop of every request.

\b
  anyserve up scenarios/laptop.yaml        start a cluster, play its traffic, judge it
  anyserve send "Hello" -c decode          one request to the running cluster
  anyserve trace REQUEST                   where its time went, and why it went there
"""


def _epilog() -> str:
    codes = "\n".join(f"  {code.value:<4} {code.meaning}" for code in ExitCode)
    return f"\b\nExit codes:\n{codes}"


def make_command() -> TyperGroup:
    """The whole command line."""
    app = typer.Typer(
        name="anyserve",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True, help=_HELP, epilog=_epilog())(_root)
    for group in (
        up, sim, compare, sweep, plan, send, cluster, control, watch, trace, tui, runs, export,
        scenario, models, calibrate, doctor, explain, config,
    ):  # fmt: skip
        group.register(app)
    nodes.register(app)
    command = get_command(app)
    assert isinstance(command, TyperGroup)  # an application with a callback is one
    return command


def _root(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: as JSON.")] = False,
    _color: Annotated[
        str,
        typer.Option("--color", metavar="WHEN", help="auto, always or never. Anywhere."),
    ] = "auto",
    _ascii: Annotated[
        bool, typer.Option("--ascii", help="Write nothing but ASCII. Anywhere.")
    ] = False,
) -> None:
    if version:
        from anyserve.cli.version import show_version  # noqa: PLC0415 - loaded when asked for

        show_version(session_of(context), as_json=as_json)
        raise typer.Exit(ExitCode.OK)
    if context.invoked_subcommand is None:
        session_of(context).diagnostics.say(context.get_help())
        raise typer.Exit(ExitCode.USAGE)
