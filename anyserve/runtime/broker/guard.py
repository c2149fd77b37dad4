"""The broker's guard: `python -m anyserve.runtime.broker.guard DIRECTORY COMMAND...`.

A broker is a foreign binary that knows nothing of our lifelines. The guard holds the lifeline for
it: when the supervisor is gone, even by `kill -9`, it ends the broker's process group and removes
the cluster's temp directory, and the objects with it. The lifeline also carries commands, one byte
each, and standard output answers with one line each, so that the supervisor can kill and start the
broker again on the same store:

    s  start the broker (when it runs already: nothing)      started PID
    k  kill it with SIGKILL                                  exited CODE

Only the standard library: the guard must start fast and must not fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from anyserve.runtime.lifeline import lifeline_fd
from anyserve.runtime.objects.directory import remove_linked

LOG_NAME: Final = "broker.log"
_TERM_WAIT_S: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1


class Guard:
    """One broker, from the supervisor's first word to the end of its lifeline."""

    def __init__(self, lifeline: int, directory: Path, command: list[str]) -> None:
        self._lifeline = lifeline
        self._directory = directory
        self._command = command
        self._broker: subprocess.Popen[bytes] | None = None
        self._wake_read, self._wake_write = os.pipe()

    def run(self) -> None:
        """Serve until the lifeline ends; then leave nothing behind."""
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # The guard goes when the lifeline ends, never before its broker.
            signal.signal(number, signal.SIG_IGN)
        try:
            self._serve()
        finally:
            self._stop()
            remove_linked(self._directory)
            shutil.rmtree(self._directory, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._lifeline, self._wake_read], [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._reap()
            if self._lifeline in ready:
                commands = os.read(self._lifeline, 64)
                if not commands:
                    return
                for command in commands:
                    self._obey(command)

    def _obey(self, command: int) -> None:
        if command == ord("s") and self._broker is None:
            self._start()
        elif command == ord("k") and self._broker is not None:
            self._signal(signal.SIGKILL)

    def _start(self) -> None:
        try:
            with (self._directory / LOG_NAME).open("ab") as log:
                self._broker = subprocess.Popen(
                    self._command,
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                    preexec_fn=_die_with_guard,  # noqa: PLW1509 - this process has one thread
                )
        except OSError as error:
            _say(f"failed {error}")
        else:
            _say(f"started {self._broker.pid}")

    def _reap(self) -> None:
        if self._broker is None:
            return
        code = self._broker.poll()
        if code is not None:
            self._broker = None
            _say(f"exited {code}")

    def _stop(self) -> None:
        if self._broker is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._broker.wait(_TERM_WAIT_S)
        self._signal(signal.SIGKILL)  # whoever is left of the group
        self._broker.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._broker is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._broker.pid, number)


def _die_with_guard() -> None:
    """In the child, before exec: not even `kill -9` of the guard leaves the broker behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, f"{line}\n".encode())


def main() -> int:
    """Run the guard with the arguments of this process."""
    lifeline = lifeline_fd()
    if lifeline is None or len(sys.argv) < 3:  # noqa: PLR2004 - program, directory, command
        sys.stderr.write("the guard is started by anyserve, with a lifeline\n")
        return 2
    Guard(lifeline, Path(sys.argv[1]), sys.argv[2:]).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
