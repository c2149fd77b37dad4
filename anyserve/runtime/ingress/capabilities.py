"""`POST /v1/capabilities/{name}`: JSON to any capability, handler or engine, and its answer.

What `anyserve.Client` speaks. The body is the payload, and the answer's body the result, with
nothing around them. With `Accept: text/event-stream` items come as events while they are made: each
`data:` is one item, `data: [DONE]` is the end, an `event: error` says why there is none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from anyserve.core.capability import is_name
from anyserve.core.messages import Code, Frame
from anyserve.errors import InvalidRequestError
from anyserve.runtime.ingress.front import Call, Front
from anyserve.runtime.ingress.handlers import HandlerAnswer, checked_json, handler_draft
from anyserve.runtime.ingress.http.errors import error_body
from anyserve.runtime.ingress.http.exchange import Exchange, served_headers
from anyserve.runtime.ingress.meanings import RefusedError, invalid
from anyserve.runtime.ingress.openai.asking import Wishes, read_wishes
from anyserve.runtime.ingress.openai.body import read_body
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.origin import Draft
from anyserve.runtime.origin.asking import (
    EngineAnswer,
    engine_draft,
    engine_of,
    read_ask,
)

PATH: Final = re.compile(r"/v1/capabilities/([^/]+)")
ATTRIBUTES: Final = b"x-anyserve-attributes"
_DONE: Final = b"data: [DONE]\n\n"


async def serve(front: Front, exchange: Exchange) -> None:
    """Answer one call."""
    name = _name(exchange)
    payload = checked_json(await read_body(front, exchange), "the body")
    wishes = read_wishes(exchange, front)
    attributes = _attributes(exchange)
    stream = "text/event-stream" in (exchange.header(b"accept") or "")
    draft, engine_answer = await _prepare(front, name, payload, wishes, attributes)
    answer = engine_answer or HandlerAnswer(front.objects, keep_items=not stream)
    with front.offer(draft, streamed=True, first_token_ms=wishes.first_token_ms) as call:
        exchange.cancel_with_client(call)
        if stream:
            await _Streaming(exchange, call, answer).run()
        else:
            await _whole(exchange, call, answer)


class _EngineAnswer:
    """The same for an engine's tokens."""

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self._answer = EngineAnswer(tokenizer)

    async def take(self, frames: Sequence[Frame]) -> AsyncIterator[bytes]:
        """Text and tokens that came."""
        for frame in frames:
            for part in self._answer.take(frame):
                yield part

    def rest(self) -> list[bytes]:
        """What was held back until the end."""
        return list(self._answer.finish())

    def whole(self, finish: str | None) -> bytes:
        """The text, its tokens and why it ended; or the vector."""
        return self._answer.whole(finish)


Answer = HandlerAnswer | _EngineAnswer


async def _prepare(
    front: Front,
    name: str,
    payload: bytes,
    wishes: Wishes,
    attributes: Mapping[str, str],
) -> tuple[Draft, _EngineAnswer | None]:
    """The request, and for an engine what reads its answer."""
    engine = engine_of(front.cluster, name)
    front.directory.check_entry(wishes.entry or front.directory.entry)
    try:
        if engine is None:
            draft = await handler_draft(front, name, payload)
            return _addressed(front, draft, wishes, attributes), None
        route = front.directory.route(capability=name, entry=wishes.entry)
        tokenizer = front.codec(route).tokenizer
        draft = engine_draft(name, engine, read_ask(payload), tokenizer)
        return _addressed(front, draft, wishes, attributes), _EngineAnswer(tokenizer)
    except InvalidRequestError as error:
        raise invalid(error.message, error.pointer or None) from None


def _addressed(front: Front, draft: Draft, wishes: Wishes, attributes: Mapping[str, str]) -> Draft:
    return dataclasses.replace(
        draft,
        attributes=attributes,
        entry=wishes.entry or front.directory.entry,
        priority=wishes.priority,
        deadline_ms=wishes.deadline_ms,
        affinity=wishes.affinity,
        stream="http",
    )


async def _whole(exchange: Exchange, call: Call, answer: Answer) -> None:
    while frames := await call.batch():
        async for _ in answer.take(frames):
            pass
    refusal = await call.refusal()
    if refusal is not None:
        raise refusal
    answer.rest()
    served = call.served
    headers = [] if served is None else served_headers(served)
    await exchange.answer(200, answer.whole(call.outcome.finish), headers)


class _Streaming:
    def __init__(self, exchange: Exchange, call: Call, answer: Answer) -> None:
        self._exchange = exchange
        self._call = call
        self._answer = answer

    async def run(self) -> None:
        """Write items as they come.

        Raises:
            RefusedError: it failed before anything had left.
        """
        try:
            while frames := await self._call.batch():
                await self._write([part async for part in self._answer.take(frames)])
            refusal = await self._call.refusal()
            if refusal is not None:
                raise refusal
            await self._write(self._answer.rest(), last=True)
        except RefusedError as refusal:
            if not self._exchange.started:
                raise
            if refusal.code == "slow_client":
                self._exchange.abort()
                return
            await self._exchange.end_stream(b"event: error\ndata: " + error_body(refusal) + b"\n\n")

    async def _write(self, parts: Sequence[bytes], *, last: bool = False) -> None:
        if not parts and not last:
            return
        if not self._exchange.started:
            served = self._call.served
            await self._exchange.begin_stream([] if served is None else served_headers(served))
        events = b"".join(b"data: " + _one_line(part) + b"\n\n" for part in parts)
        if last:
            await self._exchange.end_stream(events + _DONE)
        else:
            await self._exchange.write(events)


def _name(exchange: Exchange) -> str:
    found = PATH.fullmatch(exchange.path)
    name = found[1] if found is not None else ""
    if not is_name(name):
        text = f"'{name[:100]}' is no name of a capability"
        raise RefusedError(text, code=Code.UNKNOWN_CAPABILITY.value, param="capability")
    return name


def _attributes(exchange: Exchange) -> Mapping[str, str]:
    text = exchange.header(ATTRIBUTES)
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.MsgspecError, RecursionError):
        raise invalid("a JSON object of texts is expected", ATTRIBUTES.decode()) from None


def _one_line(part: bytes) -> bytes:
    """JSON within one line: line breaks stand only between its tokens."""
    return (
        part
        if b"\n" not in part and b"\r" not in part
        else part.replace(b"\r", b" ").replace(b"\n", b" ")
    )
