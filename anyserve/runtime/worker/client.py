"""The replica's side of its worker: starts it, talks to it, and learns how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import msgspec

from anyserve.errors import ProtocolError, StartError
from anyserve.runtime.engines.base import EngineConfig, EngineInfo, EngineRequest
from anyserve.runtime.handlers.words import (
    AppConfig,
    Call,
    CallCancel,
    CallEnded,
    CallPiece,
    Handle,
    Output,
    Outputs,
)
from anyserve.runtime.worker import ipc
from anyserve.runtime.worker.launch import WorkerProcess, launch_forked, launch_spawned

_log = logging.getLogger(__name__)
_SEND_BUFFER: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker process ended. Neither code nor signal: nobody could tell (zygote gone)."""

    code: int | None
    signal: int | None
    fatal: ipc.Fatal | None
    """What the worker said before it left, if it knew."""

    @property
    def reason(self) -> str:
        """The exit in words."""
        if self.fatal is not None:
            return self.fatal.message
        if self.signal is not None:
            return f"killed by {signal.Signals(self.signal).name}"
        return "ended with its zygote" if self.code is None else f"exit code {self.code}"


class WorkerListener(Protocol):
    """Takes what a worker reports. Called in the event loop, in the order of sending."""

    def on_loading(self, stage: str, fraction: float) -> None:
        """Loading has come this far."""

    def on_ready(self, info: EngineInfo, load_ms: float) -> None:
        """The engine takes requests."""

    def on_frame(self, frame: ipc.StepFrame) -> None:
        """A step ended."""

    def on_failed(self, failed: ipc.Failed) -> None:
        """One request cannot be served."""

    def on_cancelled(self, keys: list[str]) -> None:
        """These requests have left the engine."""

    def on_heartbeat(self, beat: ipc.Heartbeat) -> None:
        """The process lives."""

    def on_exit(self, ended: WorkerExit) -> None:
        """The process is gone. Called once, after everything else."""


class HandlerListener(Protocol):
    """Takes what a worker's handlers say, likewise."""

    def on_outputs(self, outputs: list[Output]) -> None:
        """Handlers gave these."""

    def on_call(self, call: Call) -> None:
        """A handler asks for a capability."""

    def on_call_cancel(self, number: int) -> None:
        """Nobody waits for this call any more."""


class WorkerClient:
    """One worker process, from launch to exit.

    Commands are written without waiting; they are small beside what the socket takes. After the
    exit they are dropped: `on_exit` has told.
    """

    def __init__(self, listener: WorkerListener, handlers: HandlerListener | None = None) -> None:
        self._listener = listener
        self._handlers = handlers
        self._process: WorkerProcess | None = None
        self._transport: asyncio.Transport | None = None
        self._fatal: ipc.Fatal | None = None
        self._unsent: list[bytes] = []
        self._ended: asyncio.Future[WorkerExit] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def launch(
        cls,
        config: EngineConfig,
        listener: WorkerListener,
        *,
        zygote: Path | None = None,
        env: Mapping[str, str] | None = None,
        log_path: Path | None = None,
        timeout_s: float = 60.0,
        app: AppConfig | None = None,
        handlers: HandlerListener | None = None,
    ) -> Self:
        """Start a worker, by the zygote that listens at `zygote` or as a process of its own.

        Returns as soon as the process runs and has its configuration; `on_ready` follows. `env`
        is added to the worker's environment. `app` runs beside the engine, `handlers` hears it.

        Raises:
            StartError: The process could not be started within `timeout_s`.
        """
        client = cls(listener, handlers)
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        try:
            launched = (
                launch_spawned(theirs, env or {}, log_path)
                if zygote is None
                else launch_forked(zygote, theirs, env or {}, log_path)
            )
            client._process = await asyncio.wait_for(launched, timeout_s)
        except asyncio.CancelledError:
            ours.close()  # a worker that was started sees the end and leaves
            raise
        except (OSError, TimeoutError) as error:
            ours.close()
            why = "no answer" if isinstance(error, TimeoutError) else str(error)
            raise StartError(
                f"The worker process could not be started: {why}.",
                code="worker_start",
                hint="The worker's log may tell more." if zygote is None else f"Zygote: {zygote}",
            ) from error
        finally:
            theirs.close()
        await client._connect(ours, config, app)
        return client

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        assert self._process is not None
        return self._process.pid

    def submit(self, request: EngineRequest) -> None:
        """Hand a request to the engine at the next step boundary."""
        self._send(ipc.Submit(request))

    def handle(self, request: Handle) -> None:
        """Hand a request to its handler."""
        self._send(request)

    def answer(self, word: CallPiece | CallEnded) -> None:
        """Pass on what came of a handler's call."""
        self._send(word)

    def cancel(self, key: str) -> None:
        """Forget a request; `on_cancelled` follows."""
        self._send(ipc.Cancel(key))

    def slow(self, factor: float) -> None:
        """Let steps take `factor` times as long."""
        self._send(ipc.Slow(factor))

    def kill(self) -> None:
        """Kill the process at once; `on_exit` follows."""
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def stop(self, grace_s: float = 5.0) -> WorkerExit:
        """Ask the process to end, kill it after `grace_s`, and wait until it is gone.

        Cancelling this kills the process.
        """
        self._send(ipc.Stop())
        try:
            return await asyncio.wait_for(asyncio.shield(self._ended), grace_s)
        except TimeoutError:
            _log.warning("worker %d did not stop within %.1f s", self.pid, grace_s)
            self.kill()
            return await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.kill()
            raise

    async def wait(self) -> WorkerExit:
        """Wait until the process is gone."""
        return await asyncio.shield(self._ended)

    async def _connect(
        self, sock: socket.socket, config: EngineConfig, app: AppConfig | None
    ) -> None:
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        transport, _ = await loop.create_connection(lambda: _Reports(self, closed), sock=sock)
        self._transport = transport
        self._send(ipc.Start(config, app))
        self._watch = asyncio.create_task(self._watch_exit(closed), name=f"worker-{self.pid}")

    async def _watch_exit(self, closed: asyncio.Future[None]) -> None:
        assert self._process is not None
        await closed  # every report has been delivered
        # A worker that closed its socket but lives on would keep the replica waiting for ever.
        process = self._process
        try:
            code = await asyncio.wait_for(asyncio.shield(process.exit), timeout=2.0)
        except TimeoutError:
            os.kill(process.pid, signal.SIGKILL)
            code = await process.exit
        process.close()
        if code is None:
            ended = WorkerExit(None, None, self._fatal)
        elif code >= 0:
            ended = WorkerExit(code, None, self._fatal)
        else:
            ended = WorkerExit(None, -code, self._fatal)
        self._ended.set_result(ended)
        self._listener.on_exit(ended)

    def _send(self, message: msgspec.Struct) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        # A write is a system call that wakes the worker: one for all that is said in one turn.
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(ipc.encode_frame(message))

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def _take(self, report: ipc.Report) -> None:
        match report:
            case ipc.StepFrame():
                self._listener.on_frame(report)
            case ipc.Heartbeat():
                self._listener.on_heartbeat(report)
            case ipc.Failed():
                self._listener.on_failed(report)
            case ipc.Cancelled(keys):
                self._listener.on_cancelled(keys)
            case ipc.Loading(stage, fraction):
                self._listener.on_loading(stage, fraction)
            case ipc.Ready(info, load_ms):
                self._listener.on_ready(info, load_ms)
            case ipc.Fatal():
                self._fatal = report
            case Outputs() | Call() | CallCancel():
                self._take_of_handlers(report)
            case ipc.Hello() | ipc.Pong():
                pass

    def _take_of_handlers(self, report: Outputs | Call | CallCancel) -> None:
        if self._handlers is None:
            return
        match report:
            case Outputs(outputs):
                self._handlers.on_outputs(outputs)
            case Call():
                self._handlers.on_call(report)
            case CallCancel(number):
                self._handlers.on_call_cancel(number)


class _Reports(asyncio.Protocol):
    """Cuts the worker's bytes into reports."""

    def __init__(self, client: WorkerClient, closed: asyncio.Future[None]) -> None:
        self._client = client
        self._closed = closed
        self._buffer = ipc.FrameBuffer()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._buffer.feed(data):
                self._client._take(ipc.decode_report(payload))  # noqa: SLF001 - one unit
        except ProtocolError:
            _log.exception("worker %d does not follow the protocol", self._client.pid)
            self._client.kill()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
