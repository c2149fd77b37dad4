"""Colour and characters: what the streams of this process can show, and what the user wants."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_COLORS: Final = {"red": "1;31", "yellow": "1;33", "green": "32", "cyan": "36", "dim": "2"}
_PLAIN: Final = str.maketrans(
    {
        "✔": "+", "✘": "x", "✖": "x", "…": "~", "→": ">", "↷": "~", "·": "-", "–": "-",  # noqa: RUF001
        "●": "*", "▲": "^", "≤": "<", "≥": ">", "×": "x", "µ": "u", "█": "#",  # noqa: RUF001
    }
)  # fmt: skip
_NO_TTY_WIDTH: Final = 100


class ColorChoice(Enum):
    """`--color`."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Terminal:
    """`--color` > NO_COLOR > CLICOLOR_FORCE, FORCE_COLOR > whether the stream is a terminal.

    `ascii`: nothing but ASCII leaves us, for terminals and logs that show no more.
    """

    color: ColorChoice = ColorChoice.AUTO
    ascii: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def colored(self, stream: TextIO) -> bool:
        """Whether escape sequences may go there."""
        if self.color is not ColorChoice.AUTO:
            return self.color is ColorChoice.ALWAYS
        if self.environ.get("NO_COLOR"):
            return False
        if any(self.environ.get(name, "0") != "0" for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
            return True
        if self.environ.get("TERM") == "dumb" or self.environ.get("CLICOLOR") == "0":
            return False
        return stream.isatty()

    def lively(self, stream: TextIO) -> bool:
        """Whether lines there may be drawn over (spinners, progress bars)."""
        return stream.isatty() and self.environ.get("TERM") != "dumb"

    def paint(self, text: str, color: str, stream: TextIO) -> str:
        """The text in a colour, where the stream takes one."""
        if not self.colored(stream):
            return text
        return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"

    def fit(self, text: str) -> str:
        """The text with the characters that may be shown."""
        if not self.ascii:
            return text
        return text.translate(_PLAIN).encode("ascii", "replace").decode()

    def mark(self, *, ok: bool) -> str:
        """Done, or failed."""
        if self.ascii:
            return "ok" if ok else "FAILED"
        return "✔" if ok else "✘"

    def console(self, stream: TextIO) -> Console:
        """A rich console on the stream, for tables and progress."""
        from rich.console import Console  # noqa: PLC0415 - only where something is drawn

        colored = self.colored(stream)
        return Console(
            file=stream,
            force_terminal=colored or None,
            no_color=not colored,
            color_system="auto" if colored else None,
            width=None if stream.isatty() else self._width(),
            highlight=False,
            soft_wrap=False,
            emoji=False,
            markup=False,
            safe_box=True,
        )

    def _width(self) -> int:
        columns = self.environ.get("COLUMNS", "")
        return int(columns) if columns.isdecimal() and int(columns) > 0 else _NO_TTY_WIDTH
