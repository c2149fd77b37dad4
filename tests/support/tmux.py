"""A real pseudo-terminal that a test can look at and type into."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from cli_world import MARK, Shell

WAIT_S = 60.0
PROMPT = "ready> "
CODE = '; code=$?; stty -a | grep -ow -e "-isig" -e "-icanon" -e "-echo"; echo "code $code"'
"""What follows a command on its line: what it left wrong in the terminal, then its exit code."""


class Tmux:
    """One shell in one tmux server of its own; `close` it."""

    def __init__(self, shell: Shell, *, columns: int = 140, rows: int = 40) -> None:
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed here (apt-get install tmux)")
        self._socket = shell.temp.with_name(f"{shell.temp.name}.tmux")
        environ = {**os.environ, "TMPDIR": str(shell.temp), MARK: shell.mark, "PS1": PROMPT}
        # The server itself is not of this world: it must not count as left behind.
        environ_server = {k: v for k, v in os.environ.items() if k != "TMUX"}
        inside = shlex.join(["env", *(f"{k}={v}" for k, v in environ.items() if k != "TMUX")])
        subprocess.run(
            [
                *(*self._tmux, "new-session", "-d", "-x", str(columns), "-y", str(rows)),
                *("-c", str(shell.cwd), f"exec {inside} bash --norc --noprofile"),
            ],
            env=environ_server,
            check=True,
            timeout=WAIT_S,
        )
        self.until(PROMPT.strip())

    @property
    def _tmux(self) -> list[str]:
        return ["tmux", "-S", str(self._socket), "-f", "/dev/null"]

    def anyserve(self, *words: str) -> None:
        """Type a command; `code N` appears when it has ended."""
        line = shlex.join([sys.executable, "-m", "anyserve.cli", *words])
        self.type(f"clear; {line}{CODE}")
        self.keys("Enter")

    def type(self, text: str) -> None:
        """Type a text."""
        self._run("send-keys", "-l", text)

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names: q, Enter, C-c."""
        self._run("send-keys", *names)

    def screen(self) -> str:
        """What can be seen now."""
        return self._run("capture-pane", "-p")

    def until(self, *texts: str) -> str:
        """The screen once it shows all of these; fails after a long while."""
        end_s = time.monotonic() + WAIT_S
        while time.monotonic() < end_s:
            screen = self.screen()
            if all(text in screen for text in texts):
                return screen
            time.sleep(0.05)
        pytest.fail(f"never seen: {texts}; the screen was\n{self.screen()}")

    def is_restored(self) -> bool:
        """Whether the terminal shows its main screen and a cursor, and takes the mouse itself.

        How it takes keys only a command can see: readline sets that for its prompt. See `CODE`.
        """
        modes = self._run(
            "display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"
        )
        return modes.split() == ["0", "1", "0"]

    def leave(self) -> None:
        """End the shell, which bears our mark as well, and wait until it is gone."""
        self.keys("C-d")
        end_s = time.monotonic() + WAIT_S
        while (
            subprocess.run(
                [*self._tmux, "has-session"], check=False, capture_output=True
            ).returncode
            == 0
        ):
            if time.monotonic() > end_s:
                pytest.fail("the shell in the terminal does not leave")
            time.sleep(0.05)

    def close(self) -> None:
        """End the server and the shell in it."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)
        self._socket.unlink(missing_ok=True)

    def _run(self, *words: str) -> str:
        return subprocess.run(
            [*self._tmux, *words], check=True, capture_output=True, text=True, timeout=WAIT_S
        ).stdout


def screen_process(shell: Shell) -> psutil.Process:
    """The process of the screen that `anyserve up` has opened."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == shell.mark and "--attach" in process.cmdline():
                return process
        except psutil.Error:
            continue
    raise AssertionError("no screen runs")
