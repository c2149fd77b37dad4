"""What comes back: a value with who made it, or an error with its stable code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from anyserve.app import typed
from anyserve.errors import CallError, InvalidRequestError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """An answer, and who gave it. `hops`: assignments, 1 and one more for each delegation.

    `request_id` is the name in traces: `anyserve trace ID`. What the server did not say is empty.
    """

    result: T
    request_id: str = ""
    replica: str = ""
    capability: str = ""
    """The one that served: the one asked, or one above it on the ladder."""
    hops: int = 0


class _Error(msgspec.Struct):
    message: str = ""
    code: str | None = None
    type: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


def read_result(capability: str, data: bytes, wanted: Any) -> Any:
    """The answer's JSON as the type that was wanted.

    Raises:
        CallError: it is not that (`bad_answer`).
    """
    try:
        return typed.decode(data, wanted)
    except InvalidRequestError as error:
        text = f"the answer of {capability} is not as wanted: {error.message}"
        raise CallError(text, code="bad_answer", hint=error.pointer) from None


def read_error(
    capability: str, status: int | None, headers: Mapping[str, str], body: bytes
) -> CallError:
    """The error that an answer is. `status` None: it came within a stream."""
    try:
        said = msgspec.json.decode(body, type=_ErrorBody).error
    except msgspec.MsgspecError:
        said = _Error(f"the server answered {status} without words we know", "bad_answer")
    return CallError(
        f"{capability}: {said.message}",
        code=said.code or "bad_answer",
        retry_after_ms=_milliseconds(headers),
    )


def reply_of(headers: Mapping[str, str], result: T) -> Reply[T]:
    """A reply from an answer's headers."""
    hops = headers.get("x-anyserve-hops", "")
    return Reply(
        result=result,
        request_id=headers.get("x-request-id", ""),
        replica=headers.get("x-anyserve-replica", ""),
        capability=headers.get("x-anyserve-capability-served", ""),
        hops=int(hops) if hops.isdigit() else 0,
    )


def _milliseconds(headers: Mapping[str, str]) -> int | None:
    for name, factor in (("retry-after-ms", 1), ("retry-after", 1000)):
        text = headers.get(name, "")
        if text.isdigit():
            return int(text) * factor
    return None
