"""All commands in one application; of a call that names one of them, only that one.

Typer looks at every parameter of every command it is given, and that takes longer than most
commands do.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from anyserve.cli.as_given import take_values_as_given
from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import session_of

_HELP: Final = """
Run capability-oriented LLM serving systems on this machine, and see every hop of every request.

\b
  anyserve up scenarios/laptop.yaml        start a cluster, play its traffic, judge it
  anyserve send "Hello" -c decode          one request to the running cluster
  anyserve trace REQUEST                   where its time went, and why it went there
"""

_HELP_NAMES: Final = ("-h", "--help")
MODULES: Final = {
    "up": "up",
    "sim": "sim",
    "compare": "compare",
    "sweep": "sweep",
    "plan": "plan",
    "compile": "compile",
    "send": "send",
    "status": "cluster",
    "down": "cluster",
    "control": "control",
    "watch": "watch",
    "trace": "trace",
    "tui": "tui",
    "runs": "runs",
    "report": "export",
    "export": "export",
    "scenario": "scenario",
    "models": "models",
    "calibrate": "calibrate",
    "doctor": "doctor",
    "explain": "explain",
    "config": "config",
    "broker": "nodes",
    "scheduler": "nodes",
    "replica": "nodes",
    "ingress": "nodes",
    "worker": "nodes",
}
"""Every command and the module of `anyserve.cli.commands` that registers it."""


def _epilog() -> str:
    codes = "\n".join(f"  {code.value:<4} {code.meaning}" for code in ExitCode)
    return f"\b\nExit codes:\n{codes}"


def make_command(word: str = "") -> TyperGroup:
    """The command line that a call beginning with `word` needs: all of it unless that is a command.

    Help, completion and the advice for a mistyped command know all commands.
    """
    named = MODULES.get(word)
    return _made(MODULES.values() if named is None else [named])


def _made(modules: Iterable[str]) -> TyperGroup:
    app = typer.Typer(
        name="anyserve",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": list(_HELP_NAMES), "max_content_width": 100},
    )
    app.callback(invoke_without_command=True, help=_HELP, epilog=_epilog())(_root)
    for module in dict.fromkeys(modules):
        import_module(f"anyserve.cli.commands.{module}").register(app)
    command = get_command(app)
    assert isinstance(command, TyperGroup)  # an application with a callback is one
    take_values_as_given(command, _HELP_NAMES)
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
