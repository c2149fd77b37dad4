"""Control sockets: one line of JSON asks, one line answers.

A socket lies in the cluster's private directory with mode 0600: whoever can open it may steer what
serves it. A connection serves any number of requests, one after the other. What can be asked is
said beside who serves: `anyserve.runtime.supervisor.control`, `anyserve.runtime.node_control`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from anyserve.errors import AnyServeError, StartError, TimeLimitError, UsageError
from anyserve.runtime.logs import ErrorReport

_LOG = logging.getLogger(__name__)
_LINE_LIMIT: Final = 1024 * 1024


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """Base of all requests."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`result` (null where there is nothing to say but yes), or `error`."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorReport | None = None


Handler = Callable[[Any], Awaitable[Any]]


class LineServer:
    """Serves the socket at `path` until closed. `kinds`: the union of requests it takes."""

    def __init__(self, path: Path, handler: Handler, kinds: Any) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kinds)

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


class LineClient:
    """Talks to the server of a socket; `who` is what errors call it.

    Raises (every method):
        StartError: nobody listens there, or it left before it answered.
        TimeLimitError: no answer within `timeout_s`.
        AnyServeError: it refused.
    """

    def __init__(self, path: Path, *, timeout_s: float = 10.0, who: str = "the supervisor") -> None:
        self._who = who
        self._path = path
        self._timeout_s = timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        try:
            self._streams = await asyncio.open_unix_connection(self._path, limit=_LINE_LIMIT)
        except OSError as error:
            message = f"{self._who} does not listen at {self._path}: {error.strerror or error}"
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

    async def ask(self, request: Request) -> msgspec.Raw:
        """Send one request and return its result."""
        assert self._streams is not None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(msgspec.json.encode(request) + b"\n")
                await writer.drain()
                line = await reader.readline()
        except TimeoutError:
            message = f"{self._who} gave no answer within {self._timeout_s:g} s"
            raise TimeLimitError(message, code="control_timeout") from None
        except OSError as error:
            message = f"{self._who} left: {error.strerror or error}"
            raise StartError(message, code="not_running") from None
        if not line:
            raise StartError(f"{self._who} left before it answered", code="not_running")
        return _result_of(line)


def _result_of(line: bytes) -> msgspec.Raw:
    answer = msgspec.json.decode(line, type=Answer)
    if not answer.ok:
        error = answer.error or ErrorReport(code="internal", message="refused without a reason")
        kind = UsageError if error.exit_code == UsageError.exit_code else AnyServeError
        raise kind(error.message, code=error.code, hint=error.hint)
    return answer.result
