"""One HTTP request and its answer, as handlers use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from anyserve.runtime.ingress.front import Call, Served
from anyserve.runtime.ingress.http.errors import Headers, error_body, retry_headers
from anyserve.runtime.ingress.http.protocol import connection_of
from anyserve.runtime.ingress.meanings import RefusedError

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
_JSON: Final = (b"content-type", b"application/json")
_STREAM: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class ClientGoneError(Exception):
    """The client left before its request was whole; there is nobody to answer."""


class Exchange:
    """What a handler sees. `started`: the answer's head has left."""

    def __init__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = False
        self._connection = connection_of(scope)
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str | None:
        """A header's value; None where it is absent or empty."""
        value = self.headers.get(name)
        return value.decode("latin-1").strip() or None if value is not None else None

    async def body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            RefusedError: it is longer than `limit` bytes.
            ClientGoneError: the client left.
        """
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGoneError
            part = message["body"]
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            if not message["more_body"]:
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def cancel_with_client(self, *calls: Call) -> None:
        """Give these requests up when the client goes away; no calls: no longer."""
        self._connection.on_lost(None if not calls else lambda: _cancel(calls))

    async def answer(
        self,
        status: int,
        body: bytes,
        headers: Headers | None = None,
        *,
        content_type: bytes | None = None,
    ) -> None:
        """The whole answer at once; JSON where `content_type` does not say otherwise."""
        kind = _JSON if content_type is None else (b"content-type", content_type)
        sent = [kind, (b"content-length", b"%d" % len(body)), *(headers or ())]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: RefusedError, *, allow: str = "") -> None:
        """An answer that is an error. `allow`: the methods that this path takes."""
        headers = retry_headers(refusal)
        if refusal.request_id is not None:
            headers.append((b"x-request-id", refusal.request_id.encode()))
        if refusal.code in {"body_too_large", "draining"}:
            headers.append((b"connection", b"close"))
        if refusal.http_status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        if allow:
            headers.append((b"allow", allow.encode()))
        await self.answer(refusal.http_status, error_body(refusal), headers)

    async def begin_stream(self, headers: Headers) -> None:
        """The head of a stream of events."""
        sent = [*_STREAM, *headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": sent})
        self.started = True

    async def write(self, part: bytes) -> None:
        """A part of the stream; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end_stream(self, last: bytes = b"") -> None:
        """The stream's end, with its last part."""
        await self._send({"type": "http.response.body", "body": last})

    def abort(self) -> None:
        """Cut the client off."""
        self._connection.abort()


def served_headers(served: Served) -> Headers:
    """Who served, as what, over how many hops."""
    return [
        (b"x-request-id", served.request_id.encode()),
        (b"x-anyserve-replica", served.replica.encode()),
        (b"x-anyserve-capability-asked", served.asked.encode()),
        (b"x-anyserve-capability-served", served.capability.encode()),
        (b"x-anyserve-hops", b"%d" % served.hops),
    ]


def _cancel(calls: tuple[Call, ...]) -> None:
    for call in calls:
        if not call.over:
            call.cancel()


def _too_large(limit: int) -> RefusedError:
    return RefusedError(f"the body is over {limit} bytes", code="body_too_large")
