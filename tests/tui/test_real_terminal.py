"""The application in a real pseudo-terminal: it paints, leaves, and gives the terminal back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "docs/screens/mixed"
REPLAY = ("-m", "anyserve.cli", "tui", "--replay", str(RUN), "--at", "0:33", "--paused")
RESTORED = b"\x1b[?1049l"
"""Leaves the alternate screen."""

_BREAKS = """
import sys
from anyserve.cli.main import main
from anyserve.tui.screens.overview import OverviewScreen
def paint(self, frame):
    raise RuntimeError("a bug in a screen")
OverviewScreen.paint_body = paint
sys.exit(main(sys.argv[1:]))
"""


class Terminal:
    """A process in a pseudo-terminal of 140 x 40 cells."""

    def __init__(self, argv: tuple[str, ...], state: Path) -> None:
        self.output = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(state)
            environ = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(state)}
            environ.pop("NO_COLOR", None)
            os.execve(sys.executable, [sys.executable, *argv], environ)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))

    def read_until(self, text: bytes | None) -> None:
        """Read until `text` comes, or all of it; the test's own limit ends what never comes."""
        while text is None or text not in self.output:
            ready, _, _ = select.select([self.fd], [], [], 50)
            assert ready, self.output[-2000:]
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                assert text is None, self.output[-2000:]
                return
            self.output += data

    def end(self) -> int:
        """Read to the end; gives the exit code."""
        self.read_until(None)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize(
    ("leave", "code"), [(b"q", 0), (b"\x03", 130), (signal.SIGTERM, 143)], ids=["q", "^C", "TERM"]
)
def test_it_paints_and_leaves(leave: bytes | signal.Signals, code: int, tmp_path: Path) -> None:
    terminal = Terminal(REPLAY, tmp_path)
    terminal.read_until(b"following")
    if isinstance(leave, bytes):
        os.write(terminal.fd, leave)
    else:
        os.kill(terminal.pid, leave)
    assert terminal.end() == code
    assert RESTORED in terminal.output
    assert b"Traceback" not in terminal.output


def test_a_bug_gives_the_terminal_back_and_names_a_report(tmp_path: Path) -> None:
    script = tmp_path / "breaks.py"
    script.write_text(_BREAKS)
    terminal = Terminal((str(script), *REPLAY[2:]), tmp_path)
    assert terminal.end() == 70
    restored, said = terminal.output.rsplit(RESTORED, 1)
    assert restored
    assert b"a bug in a screen" in said
    assert b"crash" in said
