"""One table: what each stable code means to a client of HTTP and of gRPC.

429 is contention (capacity exists and is busy), 503 is no capacity, 404 is a name nobody knows. A
deadline that passes while the request waits is contention; one that passes while it runs is 504.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from anyserve.core.effects import Outcome, OutcomeKind
from anyserve.core.messages import Code
from anyserve.errors import AnyServeError


class GrpcStatus(IntEnum):
    """The gRPC status codes that we answer with (grpc's own numbers, without importing it)."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a client is told. `type` is OpenAI's class of error; `retry`: waiting may help."""

    http: int
    grpc: GrpcStatus
    type: str
    retry: bool = False


_G = GrpcStatus
_BAD = Meaning(400, _G.INVALID_ARGUMENT, "invalid_request_error")
_MISSING = Meaning(404, _G.NOT_FOUND, "not_found_error")
_BUSY = Meaning(429, _G.RESOURCE_EXHAUSTED, "rate_limit_error", retry=True)
_AWAY = Meaning(503, _G.UNAVAILABLE, "service_unavailable_error", retry=True)
_BROKEN = Meaning(500, _G.INTERNAL, "server_error")
_UNKNOWN_CLIENT = Meaning(401, _G.UNAUTHENTICATED, "authentication_error")
_LATE = Meaning(504, _G.DEADLINE_EXCEEDED, "timeout_error")
_GONE = Meaning(499, _G.CANCELLED, "cancelled_error")
_LATE_IN_QUEUE = Meaning(429, _G.DEADLINE_EXCEEDED, "rate_limit_error", retry=True)

MEANINGS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        # Codes of the cluster.
        Code.NO_REPLICA.value: _AWAY,
        Code.UNKNOWN_CAPABILITY.value: _MISSING,
        Code.QUEUE_FULL.value: _BUSY,
        Code.DEADLINE_EXCEEDED.value: _LATE,
        Code.DELEGATION_EXHAUSTED.value: _AWAY,
        Code.REFUSE_EXHAUSTED.value: _AWAY,
        Code.RETURN_EXHAUSTED.value: _AWAY,
        Code.TOO_LONG.value: _BAD,
        Code.OVERLOADED.value: _BUSY,
        Code.STALE.value: _LATE,
        Code.INVALID.value: _BAD,
        Code.ENGINE_ERROR.value: _BROKEN,
        Code.HANDLER_ERROR.value: _BROKEN,
        Code.REPLICA_LOST.value: _AWAY,
        Code.WORKER_DIED.value: _AWAY,
        Code.POISONED.value: _BROKEN,
        Code.RESUME_REFUSED.value: _AWAY,
        Code.CLIENT_CANCELLED.value: _GONE,
        Code.ORIGIN_LOST.value: _AWAY,
        Code.SHUTDOWN.value: _AWAY,
        # Codes of the front door itself.
        "unsupported_parameter": _BAD,
        "unknown_entry": _BAD,
        "answer_too_large": _BAD,
        "wrong_task": _BAD,
        "no_tokenizer": _BAD,
        "model_not_found": _MISSING,
        "not_found": _MISSING,
        "method_not_allowed": Meaning(405, _G.UNIMPLEMENTED, "invalid_request_error"),
        "unsupported_media_type": Meaning(415, _G.INVALID_ARGUMENT, "invalid_request_error"),
        "body_too_large": Meaning(413, _G.INVALID_ARGUMENT, "invalid_request_error"),
        "headers_too_large": Meaning(431, _G.INVALID_ARGUMENT, "invalid_request_error"),
        "malformed_http": _BAD,
        "request_too_slow": Meaning(408, _G.DEADLINE_EXCEEDED, "timeout_error"),
        "missing_api_key": _UNKNOWN_CLIENT,
        "invalid_api_key": _UNKNOWN_CLIENT,
        "ingress_full": _BUSY,
        "too_many_connections": _AWAY,
        "draining": _AWAY,
        "slow_client": _GONE,
        "internal": _BROKEN,
    }
)
"""By stable code; `docs/http.md` shows the same table."""

_SPOKEN: Final = {
    Code.CLIENT_CANCELLED.value: "the request was cancelled",
    Code.DEADLINE_EXCEEDED.value: "the request's time was up",
    Code.SHUTDOWN.value: "the ingress is shutting down",
    Code.NO_REPLICA.value: "no replica offers this capability now",
    Code.UNKNOWN_CAPABILITY.value: "nobody knows this capability",
}


class RefusedError(AnyServeError):
    """A request that gets no answer, or no whole one: why, in every protocol's words.

    `param` names the request's own field where one is to blame. `retry_after_ms`: when a retry may
    help. `n_tokens`: how many the client had got. `request_id`: of one that was offered; without it
    the door itself turned the request away.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_ms: int | None = None,
        n_tokens: int = 0,
        request_id: str | None = None,
        meaning: Meaning | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.param = param
        self.retry_after_ms = retry_after_ms
        self.n_tokens = n_tokens
        self.request_id = request_id
        self.meaning = meaning or MEANINGS.get(code, _BROKEN)

    @property
    def http_status(self) -> int:
        """The status of an answer that is nothing but this error."""
        return self.meaning.http

    @property
    def grpc_status(self) -> GrpcStatus:
        """The same for gRPC."""
        return self.meaning.grpc


def invalid(message: str, param: str | None = None) -> RefusedError:
    """The client's mistake."""
    return RefusedError(message, code=Code.INVALID.value, param=param)


def unsupported(param: str, why: str = "is not supported here") -> RefusedError:
    """A parameter that we know we do not serve, by its name."""
    return RefusedError(f"'{param}' {why}", code="unsupported_parameter", param=param)


def refusal_of(outcome: Outcome, *, request_id: str, retry_after_ms: int) -> RefusedError | None:
    """Why a request came to no good end; None where it was completed.

    `retry_after_ms` is the front's own estimate, for outcomes that bring none.
    """
    if outcome.kind is OutcomeKind.COMPLETED:
        return None
    code = outcome.code.value if outcome.code is not None else "internal"
    meaning = MEANINGS.get(code, _BROKEN)
    if outcome.code is Code.DEADLINE_EXCEEDED and not outcome.n_tokens:
        meaning = _LATE_IN_QUEUE
    text = outcome.message or _SPOKEN.get(code) or f"the request was {outcome.kind.value}"
    return RefusedError(
        text,
        code=code,
        n_tokens=outcome.n_tokens,
        request_id=request_id,
        meaning=meaning,
        retry_after_ms=(outcome.retry_after_ms or retry_after_ms) if meaning.retry else None,
    )
