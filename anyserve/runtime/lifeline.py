"""Lifelines: a child that outlives its parent ends itself, whatever happened to the parent.

The parent keeps the write end of a pipe, the child watches the read end from a plain thread. When
the parent is gone, even by `kill -9`, the kernel closes the pipe and the child leaves. A thread
rather than the event loop: a loop that hangs must not keep an orphan alive.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

LIFELINE_ENV: Final = "ANYSERVE_LIFELINE_FD"
ORPHANED_EXIT_CODE: Final = 3


class Lifeline:
    """The parent's side. Keep it as long as its children shall live.

    One lifeline may serve many children. The write end is never inherited (PEP 446), so only
    this process holds it; a process that forks without exec must close it in the child
    (`close_in_fork`).
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()

    @property
    def pass_fds(self) -> tuple[int]:
        """For `subprocess`: the fd the child inherits."""
        return (self._read_fd,)

    @property
    def env(self) -> Mapping[str, str]:
        """What to add to the child's environment."""
        return {LIFELINE_ENV: str(self._read_fd)}

    def send(self, data: bytes) -> None:
        """Write to the children; only a child that reads its lifeline for commands is sent any."""
        os.write(self._write_fd, data)

    def close_in_fork(self) -> None:
        """In a forked child: drop the parent's end, keep the child's."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1

    def close(self) -> None:
        """Let the children go: each of them ends itself now."""
        for fd in (self._write_fd, self._read_fd):
            if fd >= 0:
                os.close(fd)
        self._read_fd = self._write_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def lifeline_fd(environ: Mapping[str, str] | None = None) -> int | None:
    """The fd this process was given, or None where it was started by hand. Not inherited on."""
    value = (os.environ if environ is None else environ).get(LIFELINE_ENV)
    if value is None:
        return None
    fd = int(value)
    os.set_inheritable(fd, False)
    return fd


def leave() -> None:
    """End the process at once, without handlers that a hanging process would never run."""
    os._exit(ORPHANED_EXIT_CODE)


def watch_lifeline(
    on_end: Callable[[], None] = leave, *, fd: int | None = None
) -> threading.Thread | None:
    """Call `on_end` from a daemon thread when the parent is gone.

    `fd` defaults to what the environment names. Returns None, and watches nothing, where there
    is no lifeline: a process somebody started by hand lives until it is told to stop.
    """
    watched = lifeline_fd() if fd is None else fd
    if watched is None:
        return None
    thread = threading.Thread(target=_watch, args=(watched, on_end), name="lifeline", daemon=True)
    thread.start()
    return thread


def _watch(fd: int, on_end: Callable[[], None]) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except OSError:
        pass  # a closed fd ends the watch like a closed pipe
    on_end()
