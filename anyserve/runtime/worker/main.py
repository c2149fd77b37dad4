"""The worker process: `python -m anyserve.runtime.worker.main --fd N`, or forked by the zygote.

Three threads: the main one steps the engine, one reads commands, one sends heartbeats. The end of
the socket, or of the lifeline, ends the process at once from a plain thread, whatever the engine
is doing.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from enum import IntEnum
from typing import TYPE_CHECKING

from anyserve.errors import AnyServeError, ProtocolError
from anyserve.runtime.engines.create import create_engine
from anyserve.runtime.handlers.words import AppConfig, CallEnded, CallPiece, Handle
from anyserve.runtime.worker import ipc
from anyserve.runtime.worker.loop import Inbox, StepLoop

if TYPE_CHECKING:
    from anyserve.runtime.handlers.host import HandlerHost

LOG_ENV = "ANYSERVE_WORKER_LOG"
_HEARTBEAT_S = 0.5
_log = logging.getLogger(__name__)


class ExitCode(IntEnum):
    """How a worker ends."""

    STOPPED = 0
    START_FAILED = 3
    REPLICA_GONE = 4
    ENGINE_BROKEN = 70


def run_worker(sock: socket.socket) -> int:
    """Serve the replica at the other end of `sock`; returns the exit code."""
    started_ns = time.monotonic_ns()
    channel = ipc.FrameSocket(sock)
    inbox = Inbox()
    desk = _Desk(inbox)
    channel.send(ipc.Hello(os.getpid()))
    threading.Thread(target=_read, args=(channel, desk), name="commands", daemon=True).start()
    (_, start), *rest = inbox.drain(wait=True)
    if not isinstance(start, ipc.Start):
        raise ProtocolError("The first command must be start.", code="bad_frame")
    for _, command in rest:
        inbox.put(command)
    engine = create_engine(start.config)
    loop = StepLoop(engine, inbox, channel.send)
    beat = threading.Thread(target=_beat, args=(channel, loop, desk), name="heartbeat", daemon=True)
    beat.start()
    try:
        info = engine.start(lambda stage, done: channel.send(ipc.Loading(stage, done)))
        if start.app is not None:
            channel.send(ipc.Loading(f"app {start.app.name}", 0.0))
            desk.host = _start_host(start.app, channel)
    except Exception as error:  # noqa: BLE001 - the process's boundary: say why, then end
        _log.exception("the worker did not start")
        channel.send(_fatal(error, "start_failed"))
        return ExitCode.START_FAILED
    channel.send(ipc.Ready(info, (time.monotonic_ns() - started_ns) / 1e6))
    try:
        loop.run()
        if desk.host is not None:
            desk.host.stop()
        engine.stop()
    except ConnectionError:
        return ExitCode.REPLICA_GONE
    except Exception as error:  # noqa: BLE001 - the process's boundary
        # A step that raises leaves the engine in an unknown state: end, and be replaced.
        _log.exception("the engine broke")
        channel.send(_fatal(error, "engine_broken"))
        return ExitCode.ENGINE_BROKEN
    return ExitCode.STOPPED


def prepare_process(log_path: str | None) -> None:
    """Send all output to the log, and leave Ctrl-C to the supervisor.

    Without a log it goes to standard error: standard output belongs to the replica's commands.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if log_path:
        handle = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)
    else:
        os.dup2(2, 1)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True
    )


def _fatal(error: Exception, code: str) -> ipc.Fatal:
    if isinstance(error, AnyServeError):
        return ipc.Fatal(error.message, error.code, error.hint)
    return ipc.Fatal(f"{type(error).__name__}: {error}", code)


def _start_host(config: AppConfig, channel: ipc.FrameSocket) -> HandlerHost:
    from anyserve.runtime.handlers.host import HandlerHost  # noqa: PLC0415 - few workers need it

    host = HandlerHost(config, channel.send, lambda keys: channel.send(ipc.Cancelled(keys)))
    host.start()
    return host


class _Desk:
    """Gives each command to whom it concerns: the engine's step loop, or the handlers."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.host: HandlerHost | None = None

    def put(self, command: ipc.Command) -> None:
        host = self.host
        if host is None:
            self._inbox.put(command)
            return
        match command:
            case Handle() | CallPiece() | CallEnded():
                host.put(command)
            case ipc.Cancel(key) if host.cancel(key):
                pass
            case ipc.Slow(factor):
                host.slow(factor)
                self._inbox.put(command)
            case _:
                self._inbox.put(command)

    def busy_since_ns(self, step_started_ns: int | None) -> int | None:
        """Since when the engine's step, or a handler that blocks all others, has been running."""
        blocked_ns = None if self.host is None else self.host.blocked_since_ns()
        both = [at_ns for at_ns in (step_started_ns, blocked_ns) if at_ns is not None]
        return min(both, default=None)


def _read(channel: ipc.FrameSocket, desk: _Desk) -> None:
    try:
        while (payloads := channel.receive()) is not None:
            for payload in payloads:
                desk.put(ipc.decode_command(payload))
    except ConnectionError as error:
        _log.info("the replica died: %s", error)
    except (OSError, ProtocolError):
        _log.exception("reading commands")
    os._exit(ExitCode.REPLICA_GONE)  # the replica is gone: so is the reason to run


def _beat(channel: ipc.FrameSocket, loop: StepLoop, desk: _Desk) -> None:
    try:
        while True:
            busy_ns = desk.busy_since_ns(loop.step_started_ns)
            held = loop.held + (0 if desk.host is None else desk.host.held)
            channel.send(ipc.Heartbeat(time.monotonic_ns(), busy_ns, held))
            time.sleep(_HEARTBEAT_S)
    except OSError:
        os._exit(ExitCode.REPLICA_GONE)


def main() -> int:
    """Run a worker on an inherited socket."""
    parser = argparse.ArgumentParser(prog="anyserve-worker")
    parser.add_argument("--fd", type=int, required=True, help="socket to the replica")
    arguments = parser.parse_args()
    prepare_process(os.environ.get(LOG_ENV))
    return run_worker(socket.socket(fileno=arguments.fd))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # engine libraries may hold threads that keep a normal exit waiting
