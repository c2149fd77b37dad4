"""The body of a request, if it says that it is JSON."""

from __future__ import annotations

from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.http.exchange import Exchange
from anyserve.runtime.ingress.meanings import RefusedError


async def read_body(front: Front, exchange: Exchange) -> bytes:
    """The whole body, within the limit.

    Raises:
        RefusedError: it is too long, or says that it is something else than JSON.
    """
    kind = exchange.header(b"content-type")
    if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
        text = f"send application/json, not {kind[:100]}"
        raise RefusedError(text, code="unsupported_media_type")
    return await exchange.body(front.settings.limits.body_bytes)
