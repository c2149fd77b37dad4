"""Requests to users' handlers: JSON in, JSON out, whatever protocol carried it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

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

MAX_KEPT_BYTES: Final = 64 * 2**20


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
    """Puts a handler's frames into JSON; large pieces are fetched from the object plane.

    `keep_items`: the whole answer is wanted at its end, so a generator's items are kept, up to
    `MAX_KEPT_BYTES`; else they are only passed on. A plain result is always kept.
    """

    def __init__(self, plane: ObjectPlane | None, *, keep_items: bool) -> None:
        self.items = True
        """Whether all that came were items of a generator; false: it is one plain result."""
        self.parts: list[bytes] = []
        """What was kept."""
        self._plane = plane
        self._keep_items = keep_items
        self._kept = 0

    async def take(self, frames: Sequence[Frame]) -> AsyncIterator[bytes]:
        """The pieces that came.

        Raises:
            RefusedError: one is out of reach, or they are too many to be kept.
        """
        for frame in frames:
            for piece in handler_pieces(frame):
                part = await self._expand(Payload(bytes(piece.payload), piece.ref))
                self.items = self.items and piece.item
                if self._keep_items or not piece.item:
                    self._keep(part)
                yield part

    def _keep(self, part: bytes) -> None:
        self._kept += len(part)
        if self._kept > MAX_KEPT_BYTES and self.parts:
            text = f"the items are over {MAX_KEPT_BYTES} bytes; ask for them as a stream"
            raise RefusedError(text, code="answer_too_large")
        self.parts.append(part)

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
