"""Standard output: the answer and nothing else."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from anyserve.cli.terminal import Terminal

if TYPE_CHECKING:
    from rich.console import Console


class OutputClosed(Exception):  # noqa: N818 - not a failure: the reader has enough
    """Whoever reads our standard output has left (`anyserve watch | head`)."""


class Output:
    """Writes to standard output.

    Raises (every method):
        OutputClosed: nobody reads it any more.
    """

    def __init__(self, terminal: Terminal, stream: TextIO | None = None) -> None:
        self.terminal = terminal
        self._stream = sys.stdout if stream is None else stream

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return self._stream.isatty()

    def line(self, text: str = "") -> None:
        """One line, or several."""
        self.text(self.terminal.fit(text) + "\n")

    def text(self, text: str) -> None:
        """Text as it is, shown at once."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise OutputClosed from None

    def json(self, value: Any) -> None:
        """One document, indented."""
        self.text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    def record(self, value: Any) -> None:
        """One line of newline-delimited JSON."""
        self.text(json.dumps(value, ensure_ascii=False, default=str) + "\n")

    def draw(self, paint: Callable[[Console], None]) -> None:
        """Let `paint` print tables and the like."""
        if not self.terminal.ascii:
            try:
                paint(self.terminal.console(self._stream))
                self._stream.flush()
            except BrokenPipeError:
                raise OutputClosed from None
            return
        buffer = io.StringIO()
        paint(self.terminal.console(buffer))
        self.text(self.terminal.fit(buffer.getvalue()))
