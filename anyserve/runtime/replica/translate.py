"""Between core's words and the worker's: requests one way, deltas the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from anyserve.core.effects import StartWork
from anyserve.core.inputs import Delta
from anyserve.core.messages import Body, Code
from anyserve.errors import ProtocolError
from anyserve.runtime.engines.base import Delta as EngineDelta
from anyserve.runtime.engines.base import EngineRequest, FinishReason, Sampling, Task
from anyserve.runtime.worker.ipc import Failed

_SEPARATOR = "#"
_CODES = {code.value: code for code in Code}


class AnswerData(msgspec.Struct, frozen=True, omit_defaults=True):
    """What travels with a frame besides token ids."""

    embedding: list[float] | None = None
    logprobs: list[Any] | None = None


def attempt_key(request_id: str, attempt: int) -> str:
    """The name of an attempt at the worker."""
    return f"{request_id}{_SEPARATOR}{attempt}"


def split_key(key: str) -> tuple[str, int]:
    """Request id and attempt of a worker's key."""
    request_id, _, attempt = key.rpartition(_SEPARATOR)
    return request_id, int(attempt)


def engine_request(work: StartWork) -> EngineRequest:
    """What the worker gets of an attempt.

    Raises:
        ProtocolError: the body of the request cannot be read.
    """
    request = work.request
    try:
        body = msgspec.json.decode(request.body, type=Body)
        sampling = msgspec.json.decode(body.sampling, type=Sampling)
        task = Task(body.task)
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"the body of the request cannot be read: {error}"
        raise ProtocolError(message, code="invalid_request") from None
    if task is Task.GENERATE:
        sampling = msgspec.structs.replace(sampling, max_tokens=request.max_tokens)
    return EngineRequest(
        key=attempt_key(request.id, work.attempt),
        prompt_ids=body.prompt_ids,
        task=task,
        sampling=sampling,
        priority=request.priority,
        resume_ids=request.resume_ids,
    )


def core_deltas(deltas: Iterable[EngineDelta]) -> list[Delta]:
    """One engine step in core's words."""
    return [_core_delta(delta) for delta in deltas]


def _core_delta(delta: EngineDelta) -> Delta:
    request_id, attempt = split_key(delta.key)
    data = None
    if delta.embedding is not None or delta.logprobs is not None:
        answer = AnswerData(embedding=delta.embedding, logprobs=delta.logprobs)
        data = msgspec.Raw(msgspec.json.encode(answer))
    failed = delta.error is not None or delta.finish is FinishReason.ERROR
    return Delta(
        id=request_id,
        attempt=attempt,
        choice=delta.choice,
        tokens=delta.token_ids,
        data=data,
        scheduled_ns=delta.scheduled_ns or None,
        finish=delta.finish.value if delta.finish is not None else None,
        done=delta.done,
        error=(delta.error or "the engine failed") if failed else None,
        error_code=_CODES.get(delta.error_code or "", Code.ENGINE_ERROR),
        cached_tokens=delta.cached_tokens if delta.scheduled_ns else None,
    )


def failed_delta(failed: Failed) -> Delta:
    """A request that the worker refused at its door: the request's own fault, unless it says so."""
    request_id, attempt = split_key(failed.key)
    code = _CODES.get(failed.code, Code.INVALID)
    return Delta(id=request_id, attempt=attempt, done=True, error=failed.message, error_code=code)


def cancelled_delta(key: str) -> Delta:
    """An attempt that has left the engine because it was cancelled."""
    request_id, attempt = split_key(key)
    return Delta(id=request_id, attempt=attempt, done=True, finish=FinishReason.CANCELLED.value)
