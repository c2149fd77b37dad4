"""Spares a command Typer's conversion of values that need none.

Typer builds a pydantic validator for each parameter of the command that is called, also for those
that were not given, and importing pydantic takes longer than all the rest of a small command. This
leans on a name that Typer does not promise to keep (`_runtime_param`): its version is bounded, and
`tests/cli/test_cold_start.py` fails where the name has moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer._coercion import RuntimeParam, build_runtime_param
from typer.core import TyperArgument, TyperGroup, TyperOption


class AsGiven(RuntimeParam):
    """Text for a parameter that wants text, and defaults that have their type already, stay as they
    are; for everything else Typer's own converter is made."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """See `RuntimeParam`."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if not many and self.parameter_info.parser is None and type(value) is self.annotation:
            return value
        return build_runtime_param(param.type_descriptor).coerce(value, param, ctx)

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:
        return self.coerce(value, param, ctx)


def take_values_as_given(command: Any, help_names: Sequence[str]) -> None:
    """Let this command and those below it convert only what needs it; also their option for help,
    which is made with the first context."""
    context = typer.Context(command, help_option_names=list(help_names))
    for param in command.get_params(context):
        if isinstance(param, (TyperOption, TyperArgument)):
            wanted = param.type_descriptor
            param._runtime_param = AsGiven(wanted.parameter_info, wanted.annotation)  # noqa: SLF001
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            take_values_as_given(inner, help_names)
