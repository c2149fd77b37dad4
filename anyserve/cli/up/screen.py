"""The screen of `anyserve up`: a process of its own on our terminal.

Whatever happens to it, the run goes on and the terminal is as it was before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
from collections.abc import Sequence
from typing import Any, Final

from anyserve.cli.session import Session
from anyserve.errors import UsageError
from anyserve.runtime.lifeline import Lifeline
from anyserve.tui import check_terminal

AUTO: Final = "auto"
TUI: Final = "tui"
PLAIN: Final = "plain"
_LEAVE_S: Final = 3.0
_IN_ORDER: Final = frozenset({0, 130, 143})
_RESTORE: Final = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l"  # no mouse
    "\x1b[?2004l\x1b[?1004l\x1b[<u"  # no bracketed paste, focus reports, keyboard protocol
    "\x1b[?1049l\x1b[?25h\x1b[0m"  # the main screen, a cursor, no colours
)


def choose_ui(session: Session, wanted: str, *, as_json: bool) -> str:
    """What `auto` means here: a screen where there is a terminal for one.

    Raises:
        UsageError: a screen was asked for, and there is no terminal.
    """
    if wanted == TUI:
        _check(session)
    if wanted != AUTO:
        return wanted
    if as_json:
        return PLAIN
    try:
        _check(session)
    except UsageError:
        return PLAIN
    return TUI


def _check(session: Session) -> None:
    check_terminal(session.environ)
    if not in_foreground():
        raise UsageError(
            "the screens need the terminal, and this command runs in its background",
            code="no_terminal",
            hint="bring it to the foreground, or use --ui plain",
        )


def in_foreground() -> bool:
    """Whether the terminal listens to us: `up &` and `timeout 60 up` run in its background.

    There a screen would be stopped by the kernel as soon as it touched the terminal.
    """
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # no terminal, or none that can tell
        return True


class Screen:
    """One screen on a cluster; `open`, then `wait`. `owned`: leaving it stops the cluster."""

    def __init__(self, session: Session, cluster: str, *, owned: bool) -> None:
        self._session = session
        self._words = ["tui", "--attach", "--cluster", cluster, "--control"]
        self._words += ["--owned"] * owned
        self._lifeline = Lifeline()
        self._process: asyncio.subprocess.Process | None = None
        self._terminal: list[Any] | None = None

    async def open(self, command: Sequence[str] = (sys.executable, "-m", "anyserve.cli")) -> None:
        """Show it."""
        with contextlib.suppress(termios.error, OSError):
            self._terminal = termios.tcgetattr(0)
        terminal = self._session.terminal
        shared = ["--color", terminal.color.value, *["--ascii"] * terminal.ascii]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            *shared,
            *self._words,
            pass_fds=self._lifeline.pass_fds,
            env={**os.environ, **self._lifeline.env},
        )

    async def wait(self) -> int:
        """Its exit code, once it is closed and the terminal is as before."""
        assert self._process is not None
        code = await self._process.wait()
        if code not in _IN_ORDER:
            self._restore()
        return code

    async def close(self) -> None:
        """Ask it to leave, and make sure of it; `wait` returns then."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_LEAVE_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _restore(self) -> None:
        """Undo what a screen that died had done to the terminal."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(_RESTORE)
            sys.stderr.flush()
        if self._terminal is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(0, termios.TCSADRAIN, self._terminal)
