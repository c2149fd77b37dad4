"""`anyserve config ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson
from anyserve.cli.session import session_of

_HELP = """
Settings: flag > environment (ANYSERVE_*) > ./anyserve.toml > [tool.anyserve] in pyproject.toml >
the user's config.toml > default.
"""


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(name="config", rich_markup_mode=None)
    group.command("show", help="Show the settings.")(show)
    group.command("path", help="Show which files are read, strongest first.")(path)
    app.add_typer(
        group,
        name="config",
        help=_HELP,
        short_help="Show settings and where they come from.",
        no_args_is_help=True,
    )


def show(
    context: typer.Context,
    *,
    origin: Annotated[
        bool, typer.Option("--origin", help="Also where each comes from, and what it overrode.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the settings."""
    from anyserve.cli.configuring import show_settings  # noqa: PLC0415 - loaded when asked for

    show_settings(session_of(context), origin=origin, as_json=as_json)


def path(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show the files."""
    from anyserve.cli.configuring import show_paths  # noqa: PLC0415 - loaded when asked for

    show_paths(session_of(context), as_json=as_json)
