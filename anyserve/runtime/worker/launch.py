"""Two ways to start a worker process: forked by the zygote, or spawned by the replica itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from anyserve.runtime.engines.allocator import allocator_settings
from anyserve.runtime.worker.fdpass import Exited, Fork, Forked, ZygoteReply, send_with_fd
from anyserve.runtime.worker.ipc import FrameBuffer

LOG_ENV: Final = "ANYSERVE_WORKER_LOG"
_RETRY_S: Final = 0.05
_READ_BYTES: Final = 4096
_replies: msgspec.msgpack.Decoder[ZygoteReply] = msgspec.msgpack.Decoder(ZygoteReply)


@dataclass(slots=True)
class WorkerProcess:
    """A started process, and the task that ends when it does."""

    pid: int
    exit: asyncio.Task[int | None]
    """Exit code, minus the signal that killed it, or None if nobody can tell."""
    zygote: socket.socket | None = None

    def close(self) -> None:
        """Let go of what was held to learn the exit."""
        if self.zygote is not None:
            self.zygote.close()


async def launch_spawned(
    sock: socket.socket, env: Mapping[str, str], log_path: Path | None
) -> WorkerProcess:
    """Start `python -m anyserve.runtime.worker.main` with `sock`.

    Raises:
        OSError: The process could not be started.
    """
    log_env = {LOG_ENV: str(log_path)} if log_path is not None else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "anyserve.runtime.worker.main",
        "--fd",
        str(sock.fileno()),
        pass_fds=(sock.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, **allocator_settings(os.environ), **env, **log_env},
    )
    return WorkerProcess(process.pid, asyncio.create_task(_wait(process)))


async def launch_forked(
    path: Path, sock: socket.socket, env: Mapping[str, str], log_path: Path | None
) -> WorkerProcess:
    """Have the zygote at `path` fork a worker with `sock`; waits while the zygote is starting.

    Raises:
        OSError: The zygote's socket cannot be used, or the zygote left.
    """
    connection = await _connect(path)
    try:
        send_with_fd(connection, Fork(str(log_path or ""), dict(env)), sock.fileno())
        replies = _Replies(connection)
        forked = await replies.next()
        if not isinstance(forked, Forked):
            raise ConnectionError("the zygote left")  # noqa: TRY301 - closes the connection
    except BaseException:
        connection.close()
        raise
    return WorkerProcess(forked.pid, asyncio.create_task(_wait_exited(replies)), connection)


async def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                await asyncio.get_running_loop().sock_connect(sock, str(path))
                return sock
            await asyncio.sleep(_RETRY_S)  # the zygote is not up yet; the caller bounds the wait
    except BaseException:
        sock.close()
        raise


class _Replies:
    """Reads the zygote's messages."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = FrameBuffer()
        self._waiting: list[bytes] = []

    async def next(self) -> Forked | Exited | None:
        """The next message, or None when the zygote is gone."""
        loop = asyncio.get_running_loop()
        while not self._waiting:
            try:
                data = await loop.sock_recv(self._sock, _READ_BYTES)
            except OSError:
                return None
            if not data:
                return None
            self._waiting += self._buffer.feed(data)
        return _replies.decode(self._waiting.pop(0))


async def _wait(process: asyncio.subprocess.Process) -> int | None:
    return await process.wait()


async def _wait_exited(replies: _Replies) -> int | None:
    exited = await replies.next()
    if not isinstance(exited, Exited):
        return None
    return exited.code if exited.signal is None else -exited.signal
