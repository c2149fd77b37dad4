"""The calls of handlers, on the worker's side: out to the replica's process, answers back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from anyserve.app import typed
from anyserve.core.capability import is_name
from anyserve.errors import CallError, InvalidRequestError
from anyserve.runtime.handlers.words import Call, CallCancel, CallEnded, CallPiece, Payload
from anyserve.runtime.objects.plane import ObjectPlane


class Answer:
    """What comes of one call. Read by one handler, once."""

    def __init__(
        self, call: Call, plane: ObjectPlane | None, give_up: Callable[[Answer], None]
    ) -> None:
        self.call = call
        self.ended: CallEnded | None = None
        self._plane = plane
        self._give_up = give_up
        self._arrived: asyncio.Queue[CallPiece | CallEnded] = asyncio.Queue()

    def take(self, word: CallPiece | CallEnded) -> None:
        """The replica said something about this call."""
        if isinstance(word, CallEnded):
            self.ended = word
        self._arrived.put_nowait(word)

    async def whole(self, wanted: Any) -> Any:
        """The result, or the list of items of a stream.

        Raises:
            CallError: it ended otherwise than completed.
            InvalidRequestError: the answer is not what was wanted.
        """
        pieces = [piece async for piece in self._pieces()]
        if pieces and not pieces[0].item:
            return await self._read(pieces[0], wanted)
        # One type for all of it, as the caller means it: `list[Item]`.
        parts = [bytes(await self._json(piece.payload)) for piece in pieces]
        return self._decoded(b"[" + b",".join(parts) + b"]", wanted)

    async def pieces(self, wanted: Any) -> AsyncIterator[Any]:
        """Each item as it comes; a plain result is a stream of one.

        Raises:
            CallError, InvalidRequestError: as `whole`.
        """
        async for piece in self._pieces():
            yield await self._read(piece, wanted)

    async def aclose(self) -> None:
        """Nobody reads on: the call is cancelled unless it has ended."""
        self._give_up(self)

    async def _pieces(self) -> AsyncIterator[CallPiece]:
        while isinstance(word := await self._arrived.get(), CallPiece):
            yield word
        if word.code:
            raise CallError(
                f"{self.call.capability}: {word.message or word.code}",
                code=word.code,
                retry_after_ms=word.retry_after_ms,
            )

    async def _read(self, piece: CallPiece, wanted: Any) -> Any:
        return self._decoded(await self._json(piece.payload), wanted)

    async def _json(self, payload: Payload) -> bytes | memoryview:
        return payload.json if self._plane is None else await self._plane.expand(payload)

    def _decoded(self, data: bytes | memoryview, wanted: Any) -> Any:
        try:
            return typed.decode(data, wanted)
        except InvalidRequestError as error:
            text = f"the answer of {self.call.capability} is not as wanted: {error.message}"
            raise CallError(text, code="bad_answer", hint=error.pointer) from None


class CallBook:
    """All open calls of a worker; used in its handlers' loop."""

    def __init__(self, send: Callable[[msgspec.Struct], None], plane: ObjectPlane | None) -> None:
        self._send = send
        self._plane = plane
        self._numbers = itertools.count(1)
        self._open: dict[int, Answer] = {}

    async def begin(
        self,
        key: str,
        capability: str,
        payload: Any,
        *,
        attributes: Mapping[str, str],
        timeout_ms: int | None,
        priority: int | None,
        streamed: bool,
    ) -> Answer:
        """Ask; `key` names the attempt that asks.

        Raises:
            InvalidRequestError: the payload cannot be sent.
            ObjectError: it is large, and there is no room for it.
        """
        if not is_name(capability):
            raise InvalidRequestError(f"{capability!r} is no name of a capability")
        sent = Payload(typed.encode(payload))
        if self._plane is not None:
            sent = await self._plane.shrink(sent)
        call = Call(
            call=next(self._numbers),
            key=key,
            capability=capability,
            payload=sent,
            attributes=attributes,
            streamed=streamed,
            timeout_ms=timeout_ms,
            priority=priority,
        )
        answer = self._open[call.call] = Answer(call, self._plane, self._close)
        self._send(call)
        return answer

    def take(self, word: CallPiece | CallEnded) -> None:
        """The replica said something; about a call that was given up it is dropped."""
        answer = self._open.get(word.call)
        if answer is not None:
            answer.take(word)

    def give_up(self, key: str) -> None:
        """The handler of this attempt has ended: nobody reads the answers it had asked for."""
        for answer in [one for one in self._open.values() if one.call.key == key]:
            self._close(answer)

    def _close(self, answer: Answer) -> None:
        known = self._open.pop(answer.call.call, None)
        if known is not None and answer.ended is None:
            self._send(CallCancel(answer.call.call))
