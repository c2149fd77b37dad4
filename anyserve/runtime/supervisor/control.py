"""The control socket of a running cluster: one line of JSON asks, one line answers.

It lies in the cluster's private directory with mode 0600: whoever can open it may steer the
cluster. A connection serves any number of requests, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec

from anyserve.errors import AnyServeError, StartError, TimeLimitError, UsageError
from anyserve.runtime.logs import ErrorReport

_LOG = logging.getLogger(__name__)
_LINE_LIMIT: Final = 1024 * 1024
Target = Literal["replica", "worker"]


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """Base of all requests."""


class Status(Request, frozen=True, tag="status"):
    """What runs: answered by `ClusterStatus`."""


class Stop(Request, frozen=True, tag="stop"):
    """Tear the cluster down; `drain` lets requests that run come to their end."""

    drain: bool = True


class Kill(Request, frozen=True, tag="kill"):
    """SIGKILL a replica's process, or its worker."""

    target: Target
    id: str


class Hang(Request, frozen=True, tag="hang"):
    """SIGSTOP a replica's process, or its worker; `duration_s` None: until `resume`."""

    target: Target
    id: str
    duration_s: float | None = None


class Resume(Request, frozen=True, tag="resume"):
    """End a hang; a drained replica takes work again."""

    target: Target
    id: str


class Slow(Request, frozen=True, tag="slow"):
    """Make a replica's engine `factor` times slower; 1 ends it."""

    id: str
    factor: float


class Drain(Request, frozen=True, tag="drain"):
    """A replica takes no more work and gives back what has not begun."""

    id: str


class Restart(Request, frozen=True, tag="restart"):
    """End a process in order and start it again at once; `name` as in `status`."""

    name: str


class Release(Request, frozen=True, tag="release"):
    """The cluster outlives its foreground process, and the end of its traffic."""


AnyRequest = (
    Status | Stop | Kill | Hang | Resume | Slow | Drain | Restart | Release
)  # fmt: skip


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process. `started_s` is wall clock; `state` a `ChildState` value."""

    name: str
    state: str
    pid: int | None = None
    started_s: float | None = None
    restarts: int = 0
    last_exit: str = ""


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica as it registered itself."""

    id: str
    state: str
    worker_pid: int | None = None


class DoorStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where clients come in. `name` of the ingress; `replica`: in whose process, empty: its own."""

    name: str
    http: str = ""
    grpc: str = ""
    replica: str = ""


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole cluster. `state`: starting, running, idle (kept, no traffic), stopping."""

    cluster: str
    state: str
    broker: str
    run_dir: str
    uptime_s: float
    kept: bool = False
    processes: list[ProcessStatus] = []
    replicas: list[ReplicaStatus] = []
    doors: list[DoorStatus] = []


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`result` (null where there is nothing to say but yes), or `error`."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorReport | None = None


Handler = Callable[[AnyRequest], Awaitable[Any]]


class ControlServer:
    """Serves the socket at `path` until closed."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._decoder: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: the socket cannot be made.
        """
        try:
            self._server = await asyncio.start_unix_server(
                self._accept, self._path, limit=_LINE_LIMIT
            )
            self._path.chmod(0o600)
        except OSError as error:
            message = f"cannot listen at {self._path}: {error.strerror or error}"
            hint = "is TMPDIR very long? A socket's path has at most about 100 characters"
            raise StartError(message, code="control_socket", hint=hint) from None

    async def close(self) -> None:
        """Stop listening, end the connections, remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer), name="control")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (OSError, ValueError) as error:  # it left, or its line has no end
            _LOG.info("a control connection ended: %s", error)
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            result = await self._handler(self._decoder.decode(line))
        except msgspec.MsgspecError as error:
            report = ErrorReport(code="control_request", message=str(error), exit_code=2)
            return Answer(ok=False, error=report)
        except AnyServeError as error:
            return Answer(ok=False, error=ErrorReport.of(error))
        except Exception as error:  # noqa: BLE001 - one bad request must not end the supervisor
            _LOG.exception("a control request failed")
            text = f"{type(error).__name__}: {error}"
            return Answer(ok=False, error=ErrorReport(code="internal", message=text))
        return Answer(ok=True, result=msgspec.Raw(msgspec.json.encode(result)))


class ControlClient:
    """Talks to a supervisor.

    Raises (every method):
        StartError: nobody listens there, or the supervisor left before it answered.
        TimeLimitError: no answer within `timeout_s`.
        AnyServeError: the supervisor refused.
    """

    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        try:
            self._streams = await asyncio.open_unix_connection(self._path, limit=_LINE_LIMIT)
        except OSError as error:
            message = f"no cluster listens at {self._path}: {error.strerror or error}"
            hint = "`anyserve status` lists the clusters that run"
            raise StartError(message, code="not_running", hint=hint) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._streams = None

    async def ask(self, request: AnyRequest) -> msgspec.Raw:
        """Send one request and return its result."""
        assert self._streams is not None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(msgspec.json.encode(request) + b"\n")
                await writer.drain()
                line = await reader.readline()
        except TimeoutError:
            message = f"the supervisor gave no answer within {self._timeout_s:g} s"
            raise TimeLimitError(message, code="control_timeout") from None
        except OSError as error:
            message = f"the supervisor left: {error.strerror or error}"
            raise StartError(message, code="not_running") from None
        if not line:
            raise StartError("the supervisor left before it answered", code="not_running")
        return _result_of(line)

    async def status(self) -> ClusterStatus:
        """What runs."""
        raw = await self.ask(Status())
        return msgspec.json.decode(raw, type=ClusterStatus)


def _result_of(line: bytes) -> msgspec.Raw:
    answer = msgspec.json.decode(line, type=Answer)
    if not answer.ok:
        error = answer.error or ErrorReport(code="internal", message="refused without a reason")
        kind = UsageError if error.exit_code == UsageError.exit_code else AnyServeError
        raise kind(error.message, code=error.code, hint=error.hint)
    return answer.result


async def request(path: Path, wanted: AnyRequest, *, timeout_s: float = 10.0) -> Any:
    """One request on a connection of its own; returns the decoded JSON of the result."""
    async with ControlClient(path, timeout_s=timeout_s) as client:
        return msgspec.json.decode(await client.ask(wanted))


def socket_path(directory: Path) -> Path:
    """Where the socket of a cluster lies in its private directory."""
    return Path(os.path.abspath(directory)) / "control"  # noqa: PTH100 - no symlink resolution
