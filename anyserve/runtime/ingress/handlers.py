"""Requests to users' handlers: JSON in, JSON out, whatever protocol carried it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from anyserve.core.messages import Frame
from anyserve.errors import ObjectError
from anyserve.runtime.engines.base import Task
from anyserve.runtime.handlers.words import Payload
from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.meanings import RefusedError, invalid
from anyserve.runtime.objects.plane import ObjectPlane
from anyserve.runtime.origin import Draft
from anyserve.runtime.origin.asking import handler_pieces


def checked_json(payload: bytes, what: str) -> bytes:
    """The payload, if it is JSON; nothing at all is null. `what` it is called in an error.

    Raises:
        RefusedError: it is no JSON.
    """
    if not payload.strip():
        return b"null"
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(f"{what} is not JSON: {error}") from None
    return payload


async def handler_draft(front: Front, capability: str, payload: bytes) -> Draft:
    """A request for a handler; a payload too large for a message goes into the object plane.

    Raises:
        RefusedError: there is no room for it.
    """
    sent = Payload(payload)
    if front.objects is not None:
        try:
            sent = await front.objects.shrink(sent)
        except ObjectError as error:
            raise RefusedError(error.message, code=error.code) from None
    return Draft(capability=capability, task=Task.HANDLE, payload=sent.json, payload_ref=sent.ref)


class HandlerAnswer:
    """Puts a handler's frames into JSON; large pieces are fetched from the object plane."""

    def __init__(self, plane: ObjectPlane | None) -> None:
        self.items = True
        """Whether all that came were items of a generator; false: it is one plain result."""
        self.parts: list[bytes] = []
        self._plane = plane

    async def take(self, frames: Sequence[Frame]) -> AsyncIterator[bytes]:
        """The pieces that came.

        Raises:
            RefusedError: one is out of reach.
        """
        for frame in frames:
            for piece in handler_pieces(frame):
                part = await self._expand(Payload(bytes(piece.payload), piece.ref))
                self.items = self.items and piece.item
                self.parts.append(part)
                yield part

    def rest(self) -> list[bytes]:
        """What was held back until the end."""
        return []

    def whole(self, _finish: str | None) -> bytes:
        """The result, or the list of a generator's items."""
        return b"[" + b",".join(self.parts) + b"]" if self.items else self.parts[0]

    async def _expand(self, payload: Payload) -> bytes:
        if payload.ref is None:
            return payload.json
        if self._plane is None:
            text = f"the answer is the object {payload.ref.id}, which this ingress cannot reach"
            raise RefusedError(text, code="object_unreachable")
        try:
            return bytes(await self._plane.expand(payload))
        except ObjectError as error:
            raise RefusedError(error.message, code=error.code) from None
