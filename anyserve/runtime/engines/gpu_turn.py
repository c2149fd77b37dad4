"""Engines on one GPU load one after the other.

While vLLM loads, it measures how the free memory of the *whole* GPU shrinks, and takes it all for
its own doing: of two that load at once on one GPU, both get too small a KV cache, or none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def gpu_turn(path: str | None, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock on `path` (None: nothing to wait for); `waiting` is told before it has to wait.

    The system lets go of it when the process dies, however it dies.
    """
    if path is None:
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
