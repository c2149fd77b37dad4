"""Standard error and exit codes: everything that is not the answer goes through here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, TextIO

from anyserve.cli.terminal import Terminal
from anyserve.errors import AnyServeError


class ExitCode(IntEnum):
    """What the process says to its caller; the numbers are part of the interface."""

    OK = 0
    EXPECTATIONS_FAILED = 1
    """It ran, and did not do what was expected of it."""
    USAGE = 2
    """The command or the scenario file is wrong; nothing was started."""
    NOT_STARTED = 3
    """The cluster could not start: broker, port, worker."""
    TIMEOUT = 4
    """Something took longer than it was given."""
    MISSING = 5
    """vLLM, a GPU, a model or a broker is not there."""
    INTERNAL = 70
    """A bug of ours; a crash report was written."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""

    @property
    def meaning(self) -> str:
        """A few words for help and documentation."""
        return _MEANINGS[self]


_MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.OK: "ok",
    ExitCode.EXPECTATIONS_FAILED: "it ran, but expectations or checks failed",
    ExitCode.USAGE: "wrong usage or invalid scenario; nothing was started",
    ExitCode.NOT_STARTED: "the cluster could not start, or died",
    ExitCode.TIMEOUT: "out of time",
    ExitCode.MISSING: "something is not installed: vLLM, a model, a broker",
    ExitCode.INTERNAL: "a bug in AnyServe; a crash report was written",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.TERMINATED: "terminated (SIGTERM)",
}


class Diagnostics:
    """Writes to standard error. A closed standard error is no reason to fail."""

    def __init__(self, terminal: Terminal, stream: TextIO | None = None) -> None:
        self.terminal = terminal
        self._stream = sys.stderr if stream is None else stream
        self._above: Callable[[str], None] | None = None

    def write_above(self, write: Callable[[str], None] | None) -> None:
        """While something is drawn over at the bottom, lines go through whoever draws it."""
        self._above = write

    @property
    def stream(self) -> TextIO:
        """Where it writes."""
        return self._stream

    def say(self, text: str = "") -> None:
        """One line, or several."""
        line = self.terminal.fit(text)
        if self._above is not None:
            self._above(line)
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # nobody listens any more; the exit code says the rest
            return

    def warn(self, text: str) -> None:
        """Something the user should know and that does not stop us."""
        self.say(f"{self._styled('warning', 'yellow')}: {text}")

    def hint(self, text: str) -> None:
        """How to go on."""
        self.say(f"{self._styled('help', 'cyan')}: {text}")

    def error(self, code: str, message: str, hint: str = "") -> None:
        """What went wrong, its code and how to mend it."""
        self.say(f"{self._styled(f'error[{code}]', 'red')}: {message}")
        if hint:
            self.hint(hint)

    def _styled(self, text: str, color: str) -> str:
        return self.terminal.paint(text, color, self._stream)


def error_object(error: AnyServeError) -> dict[str, Any]:
    """`{"error": {...}}` as `--json` prints it."""
    found: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint or None,
        "exit_code": error.exit_code,
    }
    problems = getattr(error, "problems", None)
    if problems:
        first = problems[0]
        found |= {"file": first.file, "line": first.line, "column": first.column}
        found["problems"] = [problem.to_dict() for problem in problems]
    return {"error": found}


def quiet_streams() -> None:
    """After a reader left: keep the interpreter from complaining about it at its exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(null, stream.fileno())
        except (OSError, ValueError):  # not a real file, or closed already
            continue
    os.close(null)
