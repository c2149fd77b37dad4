"""What travels in `Frame.data`: what an answer holds beside token ids."""

from __future__ import annotations

from typing import Any

import msgspec

from anyserve.core.messages import NO_DATA
from anyserve.core.objects import ObjRef


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """A handler's result, or one item of its stream: JSON, or the object that holds the JSON."""

    payload: msgspec.Raw = NO_DATA
    ref: ObjRef | None = None
    item: bool = False


class AnswerData(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of these: a vector, log probabilities of the frame's tokens, or a handler's piece."""

    embedding: list[float] | None = None
    logprobs: list[Any] | None = None
    result: Piece | None = None


def read_answer(data: msgspec.Raw) -> AnswerData:
    """The `data` of a frame."""
    return msgspec.json.decode(data, type=AnswerData)
