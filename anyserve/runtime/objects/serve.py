"""`GET /objects/<id>`: copies for other hosts. An ASGI application, to be mounted by an ingress.

Whoever wants a copy shows the cluster's token, which is made from a credential that every process
of the cluster has. The path is taken from the end, so that it works below any mount point.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from anyserve.core.objects import ObjRef
from anyserve.errors import ObjectError
from anyserve.runtime.objects.store import ObjectStore

_CHUNK_BYTES: Final = 1 << 20

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ObjectServer:
    """Answers GET and HEAD for the objects of one host."""

    def __init__(self, store: ObjectStore, token: str) -> None:
        self._store = store
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        del receive
        if scope["type"] != "http":
            return
        if scope["method"] not in {"GET", "HEAD"}:
            await _say(send, 405, "only GET and HEAD")
        elif not self._allowed(scope):
            await _say(send, 401, "the cluster's token is needed")
        else:
            await self._answer(scope, send)

    def _allowed(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return not self._token or hmac.compare_digest(given, b"Bearer " + self._token)

    async def _answer(self, scope: Scope, send: Send) -> None:
        ref = self._store.lookup(scope["path"].rpartition("/")[2])
        try:
            data = None if ref is None else self._store.view(ref)
        except ObjectError:
            data = None
        if ref is None or data is None:
            await _say(send, 404, "no such object, or no longer")
            return
        await send(_start(200, ref))
        body = data if scope["method"] == "GET" else data[:0]
        for start in range(0, len(body), _CHUNK_BYTES):
            chunk = bytes(body[start : start + _CHUNK_BYTES])
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)  # a gigabyte must not keep others waiting
        await send({"type": "http.response.body", "body": b""})


def _start(status: int, ref: ObjRef) -> Message:
    headers = [
        # Always the same: what was put must not be taken for a page of ours by a browser.
        (b"content-type", b"application/octet-stream"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-length", str(ref.size).encode()),
        (b"etag", f'"{ref.digest}"'.encode()),
        (b"x-anyserve-object", msgspec.json.encode(ref)),
    ]
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _say(send: Send, status: int, message: str) -> None:
    code = {401: "unauthorized", 404: "object_gone", 405: "method_not_allowed"}[status]
    body = msgspec.json.encode({"error": {"code": code, "message": message}})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:  # noqa: PLR2004
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
