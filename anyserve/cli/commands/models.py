"""`anyserve models ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson
from anyserve.cli.completion import complete_model
from anyserve.cli.session import session_of


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(name="models", rich_markup_mode=None)
    group.command("list", help="List the built-in models and whether they are ready.")(list_)
    group.command("prepare", help="Make a model ready before it is needed.")(prepare)
    app.add_typer(group, name="models", help="Built-in models.", no_args_is_help=True)


def list_(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List models."""
    from anyserve.cli.modelling import list_models  # noqa: PLC0415 - loaded when asked for

    list_models(session_of(context), as_json=as_json)


def prepare(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A built-in name, a folder or a hub id.",
            autocompletion=complete_model,
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Make a model ready."""
    from anyserve.cli.modelling import prepare_model  # noqa: PLC0415 - loaded when asked for

    prepare_model(session_of(context), name, as_json=as_json)
