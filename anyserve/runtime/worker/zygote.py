"""The zygote: imports vLLM once per machine and forks a ready-to-load worker on request.

`python -m anyserve.runtime.worker.zygote --socket PATH [--preload vllm]`. It binds the socket
before it imports, so requests made meanwhile wait in the backlog. It runs no torch operation and,
on GPUs, never touches CUDA: a fork must find nothing initialised. One connection serves one
worker: `Fork` (with the worker's socket attached) is answered by `Forked`, later by `Exited`.

A worker dies with its replica (end of its socket), and with the zygote (end of a pipe whose only
writer is the zygote). Where fork is not safe (macOS, or an import has started CUDA after all), a
worker is spawned instead.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from anyserve.errors import ProtocolError
from anyserve.runtime.engines.detect import VllmBuild, detect
from anyserve.runtime.engines.vllm_memory import prepare_to_fork
from anyserve.runtime.lifeline import watch_lifeline
from anyserve.runtime.worker import main as worker
from anyserve.runtime.worker.fdpass import Exited, Fork, Forked, receive_with_fds
from anyserve.runtime.worker.ipc import FrameBuffer, encode_frame
from anyserve.runtime.worker.preloads import (
    NAMES,
    can_still_fork,
    import_each,
    preload_modules,
)

_log = logging.getLogger(__name__)
_BACKLOG: Final = 64


@dataclass(slots=True)
class _Client:
    """One connection: at most one worker."""

    sock: socket.socket
    buffer: FrameBuffer = field(default_factory=FrameBuffer)
    fds: list[int] = field(default_factory=list)


class Zygote:
    """Accepts requests on a unix socket and forks."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(_BACKLOG)
        path.chmod(0o600)
        self._clients: dict[int, _Client] = {}
        self._owners: dict[int, _Client] = {}
        """Pid of a worker -> the connection that asked for it."""
        self._alive_read, self._alive_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector = selectors.DefaultSelector()
        self._forks = sys.platform == "linux"

    def preload(self, names: Sequence[str], build: VllmBuild) -> None:
        """Import the modules of each named engine; what is missing shows when it is used."""
        for name in names:
            import_each(preload_modules(name, build))
        if "vllm" in sys.modules and build is VllmBuild.CPU:
            _prepare()
        if self._forks and build is VllmBuild.CUDA and not can_still_fork():
            _log.warning("an import has started CUDA: workers are spawned, which takes longer")
            self._forks = False
        gc.collect()
        gc.freeze()  # keep the collector from copying the shared pages

    def run(self) -> None:
        """Serve until the process ends. Returns only in a forked child, which must leave."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the selector through the pipe
        signal.set_wakeup_fd(self._wake_write)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == self._wake_read:
                    os.read(self._wake_read, 4096)
                    self._reap()
                else:
                    self._serve(self._clients[key.fd])

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self._clients[sock.fileno()] = _Client(sock)
        self._selector.register(sock, selectors.EVENT_READ)

    def _serve(self, client: _Client) -> None:
        try:
            data, fds = receive_with_fds(client.sock)
            client.fds += fds
            requests = [
                msgspec.msgpack.decode(payload, type=Fork) for payload in client.buffer.feed(data)
            ]
        except (OSError, ProtocolError, msgspec.MsgspecError):
            _log.exception("a request to the zygote")
            data, requests = b"", []
        if not data:
            self._drop(client)
        for request in requests:
            self._start_worker(client, request)

    def _start_worker(self, client: _Client, request: Fork) -> None:
        if not client.fds:
            _log.error("a fork request came without its socket")
            self._drop(client)
            return
        fd = client.fds.pop()
        pid = self._fork(fd, request) if self._forks else _spawn(fd, request)
        os.close(fd)
        self._owners[pid] = client
        self._reply(client, Forked(pid))

    def _fork(self, fd: int, request: Fork) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = int(worker.ExitCode.START_FAILED)
        try:
            self._become_child()
            os.environ.update(request.env)
            tempfile.tempdir = None  # so that a TMPDIR in the request counts
            worker.prepare_process(request.log_path or None)
            code = worker.run_worker(socket.socket(fileno=fd))
        except BaseException:  # noqa: BLE001 - nothing may run on into the zygote's loop
            _log.exception("worker")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _become_child(self) -> None:
        """Keep nothing of the zygote but the read end of its pipe."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        self._listener.close()
        for client in self._clients.values():
            client.sock.close()
            for fd in client.fds:
                os.close(fd)
        for fd in (self._alive_write, self._wake_read, self._wake_write):
            os.close(fd)
        threading.Thread(
            target=_leave_with_zygote, args=(self._alive_read,), name="zygote", daemon=True
        ).start()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._report_exit(pid, os.waitstatus_to_exitcode(status))

    def _report_exit(self, pid: int, code: int) -> None:
        client = self._owners.pop(pid, None)
        if client is not None:
            exited = Exited(pid, code=code) if code >= 0 else Exited(pid, signal=-code)
            self._reply(client, exited)

    def _reply(self, client: _Client, message: Forked | Exited) -> None:
        with contextlib.suppress(OSError):  # a replica that is gone needs no answer
            client.sock.sendall(encode_frame(message))

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is None:
            return
        self._selector.unregister(client.sock)
        client.sock.close()
        for fd in client.fds:
            os.close(fd)


def _prepare() -> None:
    try:
        prepare_to_fork()
    except (ImportError, AttributeError) as error:
        _log.info("nothing to prepare in this version: %s", error)  # before vLLM 0.31
    except Exception:  # noqa: BLE001 - a foreign library may raise anything; it only saves memory
        _log.exception("workers will share less memory")


def _leave_with_zygote(alive_fd: int) -> None:
    os.read(alive_fd, 1)  # nobody writes: this returns when the zygote is gone
    os._exit(worker.ExitCode.REPLICA_GONE)


def _spawn(fd: int, request: Fork) -> int:
    os.set_inheritable(fd, True)
    command = [sys.executable, "-m", "anyserve.runtime.worker.main", "--fd", str(fd)]
    env = {**os.environ, **request.env, worker.LOG_ENV: request.log_path}
    return os.posix_spawn(sys.executable, command, env)


def main() -> None:
    """Run the zygote until its lifeline or a signal ends it."""
    parser = argparse.ArgumentParser(prog="anyserve-zygote")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--preload", action="append", choices=NAMES, default=[])
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    watch_lifeline()
    zygote = Zygote(arguments.socket)
    if arguments.preload:
        zygote.preload(arguments.preload, detect().build)
    zygote.run()


if __name__ == "__main__":
    main()
