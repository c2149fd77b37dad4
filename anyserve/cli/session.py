"""What every command is given: settings, the two streams, the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyserve.cli.diagnostics import Diagnostics
from anyserve.cli.output import Output
from anyserve.cli.settings import Settings, load_settings
from anyserve.cli.terminal import ColorChoice, Terminal
from anyserve.errors import UsageError

if TYPE_CHECKING:
    import typer


@dataclass(frozen=True, slots=True)
class Session:
    """One call of `anyserve`."""

    settings: Settings
    output: Output
    diagnostics: Diagnostics
    environ: Mapping[str, str]
    cwd: Path

    @property
    def runs_dir(self) -> Path:
        """Where runs lie, by settings."""
        return self.cwd / str(self.settings.value("runs"))

    @property
    def terminal(self) -> Terminal:
        """What can be shown."""
        return self.output.terminal

    def runs(self, flag: Path | None) -> Path:
        """The directory of runs: the flag's, else the setting's."""
        return self.runs_dir if flag is None else flag

    def setting(self, name: str, flag: object) -> object:
        """The flag where it was given, else the setting."""
        return self.settings.value(name) if flag is None else flag


def open_session(
    color: str | None,
    *,
    ascii_only: bool,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Session:
    """The session of this process; flags win over settings.

    Raises:
        UsageError: a settings file is wrong, or there is no such colour choice.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    settings = load_settings(environ, cwd)
    wanted = str(color or settings.value("color"))
    try:
        choice = ColorChoice(wanted)
    except ValueError:
        hint = "one of: auto, always, never"
        raise UsageError(f"there is no color choice '{wanted}'", code="usage", hint=hint) from None
    plain = ascii_only or bool(settings.value("ascii")) or not _shows_unicode()
    terminal = Terminal(choice, plain, environ)
    return Session(settings, Output(terminal), Diagnostics(terminal), environ, cwd)


def session_of(context: typer.Context) -> Session:
    """The session that `main` gave to the command."""
    session = context.obj
    assert isinstance(session, Session)
    return session


def _shows_unicode() -> bool:
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    return encoding.startswith("utf")
