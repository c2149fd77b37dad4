"""Errors as OpenAI's clients read them: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from anyserve.runtime.ingress.meanings import RefusedError

Headers = list[tuple[bytes, bytes]]
_encode: Final = msgspec.json.Encoder().encode


class ErrorFields(msgspec.Struct, frozen=True, kw_only=True):
    """The inner object. `code` is stable; `anyserve explain CODE` says more."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The whole answer."""

    error: ErrorFields


def error_body(refusal: RefusedError) -> bytes:
    """The answer's body, also the data of an error event in a stream."""
    return _encode(
        ErrorBody(
            ErrorFields(
                message=refusal.message,
                type=refusal.meaning.type,
                param=refusal.param,
                code=refusal.code,
            )
        )
    )


def retry_headers(refusal: RefusedError) -> Headers:
    """When to try again: whole seconds for everybody, milliseconds for who can read them."""
    wait_ms = refusal.retry_after_ms
    if wait_ms is None:
        return []
    seconds = max(1, math.ceil(wait_ms / 1000))
    return [(b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % wait_ms)]
