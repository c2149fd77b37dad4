"""uvicorn's HTTP/1.1 connection, with bounds on what a client may send and how slowly it may read.

uvicorn parses (httptools), keeps alive, pipelines and controls the flow. Added here: limits on
headers and connections, time limits for headers, bodies and stalled readers, errors as JSON, and a
callback when the client goes away, so that no task has to wait for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from anyserve.core.spec import IngressLimits
from anyserve.runtime.ingress.http.errors import error_body, retry_headers
from anyserve.runtime.ingress.meanings import RefusedError

CONNECTION: Final = "anyserve.connection"
"""Under this name in the scope's `extensions` the app finds its connection."""
_LINGER_S: Final = 1.0


class _Part(Enum):
    """Which part of a request is being received."""

    NONE = "none"
    HEAD = "head"
    BODY = "body"


class GuardedProtocol(HttpToolsProtocol):
    """One connection of a client we do not trust."""

    def __init__(self, config: Config, state: ServerState, limits: IngressLimits) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._limits = limits
        self._part = _Part.NONE
        self._head_bytes = 0
        self._refusal: RefusedError | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._on_lost: Callable[[], None] | None = None

    # --- what the app uses -----------------------------------------------------------------------

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        """Call this when the client is gone; at once where it is already."""
        self._on_lost = callback
        if callback is not None and self.transport.is_closing():
            callback()

    def abort(self) -> None:
        """Cut the connection off; what waits to be sent is dropped."""
        if self.transport is not None:
            self.transport.abort()

    # --- the connection --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; too many of them are sent away."""
        full = len(self.connections) >= self._limits.connections
        super().connection_made(transport)
        if full:
            text = f"{self._limits.connections} connections are open already"
            self._refuse(RefusedError(text, code="too_many_connections", retry_after_ms=1_000))
            return
        self._wait(self._limits.header_ms)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, by its wish or ours."""
        self._cancel_timers()
        super().connection_lost(exc)
        callback, self._on_lost = self._on_lost, None
        if callback is not None:
            callback()

    def data_received(self, data: bytes) -> None:
        """Parse; bound the head, and the time that a part may take."""
        if self._refusal is not None:
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._part is _Part.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_bytes:
                self._refuse(self._too_large())
                return
        if self._part is _Part.NONE:
            self._stop_waiting()
        elif self._patience is None:
            head = self._part is _Part.HEAD
            self._wait(self._limits.header_ms if head else self._limits.body_ms)

    def pause_writing(self) -> None:
        """The client reads too slowly for us; it has `stall_ms` to go on."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._limits.stall_ms / 1000, self.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Idle for too long; what it has not read of the last answer is dropped after a moment."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_LINGER_S, self.abort)

    # --- the parser's callbacks ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._part = _Part.HEAD
        self._head_bytes = 0
        self.scope["extensions"] = {CONNECTION: {"protocol": self}}

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.header_bytes:
            self._refusal = self._too_large()
            raise self._refusal
        self._part = _Part.BODY
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Its body is whole."""
        self._part = _Part.NONE
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed, or what a callback of ours refused."""
        self._refuse(self._refusal or RefusedError(msg, code="malformed_http"))

    def _unsupported_upgrade_warning(self) -> None:
        """No line in the log for everybody who asks for a websocket."""

    # --- refusing --------------------------------------------------------------------------------

    def _too_large(self) -> RefusedError:
        text = f"the request's head is over {self._limits.header_bytes} bytes"
        return RefusedError(text, code="headers_too_large")

    def _refuse(self, refusal: RefusedError) -> None:
        """Answer without the app, and close."""
        self._refusal = refusal
        self._cancel_timers()
        if not self.transport.is_closing():
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is None or cycle.response_complete or not cycle.response_started:
                self.transport.write(_plain_answer(refusal))
            self.transport.close()
            self.loop.call_later(_LINGER_S, self.abort)

    def _wait(self, limit_ms: int) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(limit_ms / 1000, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        self._patience = None
        if self._part is _Part.NONE:
            self.transport.close()  # it never said a word
            return
        text = f"the request's {self._part.value} did not arrive in time"
        self._refuse(RefusedError(text, code="request_too_slow"))

    def _cancel_timers(self) -> None:
        self._stop_waiting()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def _plain_answer(refusal: RefusedError) -> bytes:
    body = error_body(refusal)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *retry_headers(refusal),
    ]
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[refusal.http_status], *lines, b"\r\n", body])


def connection_of(scope: Any) -> GuardedProtocol:
    """The connection that an app's scope came from."""
    connection: GuardedProtocol = scope["extensions"][CONNECTION]["protocol"]
    return connection
