"""`anyserve scenario ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, Overrides, ScenarioFile
from anyserve.cli.completion import complete_scenario
from anyserve.cli.session import session_of


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="scenario", help="Check, show and list scenario files.", rich_markup_mode=None
    )
    group.command("validate", help=_VALIDATE)(validate)
    group.command("show", help=_SHOW)(show)
    group.command("list", help="List the scenario files of a directory.")(list_)
    group.command("schema", help="Print the JSON Schema of scenario files.")(schema)
    app.add_typer(group, name="scenario", no_args_is_help=True)


_VALIDATE = """
Check scenario files: every problem of every file, with its place.

\b
  anyserve scenario validate scenarios/*.yaml
  anyserve scenario validate my.yaml --json
"""
_SHOW = """
Show what a scenario says, defaults included, as YAML or JSON.

\b
  anyserve scenario show scenarios/mixed.yaml
  anyserve scenario show scenarios/mixed.yaml --set cluster.delegation.limit=0 --json
"""


def validate(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCENARIO...", help="Scenario files.", autocompletion=complete_scenario
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Check scenario files."""
    from anyserve.cli.scenarios import validate_files  # noqa: PLC0415 - loaded when asked for

    raise typer.Exit(validate_files(session_of(context), files, as_json=as_json))


def show(
    context: typer.Context,
    scenario: ScenarioFile,
    *,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show a scenario with its defaults."""
    from anyserve.cli.scenarios import show_file  # noqa: PLC0415 - loaded when asked for

    show_file(session_of(context), scenario, tuple(overrides or ()), as_json=as_json)


def list_(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to look.")] = Path(
        "scenarios"
    ),
    *,
    as_json: AsJson = False,
) -> None:
    """List scenario files."""
    from anyserve.cli.scenarios import list_files  # noqa: PLC0415 - loaded when asked for

    list_files(session_of(context), directory, as_json=as_json)


def schema(context: typer.Context) -> None:
    """Print the JSON Schema."""
    from anyserve.cli.scenarios import print_schema  # noqa: PLC0415 - loaded when asked for

    print_schema(session_of(context))
