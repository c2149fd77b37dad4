"""`/live`, `/ready`, `/health` and `/metrics`: what machines ask."""

from __future__ import annotations

from typing import Final

import msgspec

from anyserve.runtime.ingress.front import Front, FrontState
from anyserve.runtime.ingress.http.errors import Headers
from anyserve.runtime.ingress.http.exchange import Exchange

_EXPOSITION: Final = b"text/plain; version=0.0.4; charset=utf-8"
_WAIT: Final[Headers] = [(b"retry-after", b"1")]


class Health(msgspec.Struct, frozen=True):
    """What a probe is told."""

    status: str
    open_requests: int


async def serve_live(front: Front, exchange: Exchange) -> None:
    """200 as long as the process answers at all, also while it drains."""
    await _say(front, exchange, 200)


async def serve_ready(front: Front, exchange: Exchange) -> None:
    """200 while new requests are taken; 503 before, while it drains, and without its cluster."""
    ready = front.state is FrontState.READY
    await _say(front, exchange, 200 if ready else 503)


async def serve_health(front: Front, exchange: Exchange) -> None:
    """As `/ready`: what load balancers of OpenAI-compatible servers ask."""
    await serve_ready(front, exchange)


async def serve_metrics(front: Front, exchange: Exchange) -> None:
    """The text format of Prometheus."""
    text = front.exposition()
    await exchange.answer(200, text.encode(), content_type=_EXPOSITION)


async def _say(front: Front, exchange: Exchange, status: int) -> None:
    body = msgspec.json.encode(Health(front.state.value, front.open_requests))
    await exchange.answer(status, body, _WAIT if status != 200 else None)  # noqa: PLR2004 - HTTP
