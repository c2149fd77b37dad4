"""Between core's words and the worker's: requests one way, deltas the other."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from anyserve.core.effects import StartWork
from anyserve.core.inputs import Delta
from anyserve.core.messages import Body, Code
from anyserve.errors import ProtocolError
from anyserve.runtime.answers import AnswerData, Piece
from anyserve.runtime.engines.base import Delta as EngineDelta
from anyserve.runtime.engines.base import EngineRequest, FinishReason, Sampling, Task
from anyserve.runtime.handlers.words import Handle, Output, Payload
from anyserve.runtime.worker.ipc import Failed

_SEPARATOR = "#"
_CODES = {code.value: code for code in Code}


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
    body, sampling, task = _read_body(work)
    if task is Task.HANDLE:
        message = f"{request.capability} is computed by an engine here, which takes a prompt"
        raise ProtocolError(message, code="invalid_request")
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


def handler_request(work: StartWork, deadline_ns: int | None) -> Handle:
    """What a handler gets of an attempt. A prompt, where one was sent, becomes its payload.

    Raises:
        ProtocolError: the body of the request cannot be read.
    """
    request = work.request
    body, sampling, task = _read_body(work)
    payload = Payload(bytes(body.payload), body.payload_ref)
    if task is not Task.HANDLE:
        asked = {**msgspec.to_builtins(sampling), "prompt_ids": body.prompt_ids, "task": task.value}
        payload = Payload(msgspec.json.encode(asked))
    return Handle(
        key=attempt_key(request.id, work.attempt),
        request_id=request.id,
        capability=request.capability,
        payload=payload,
        attributes=request.attributes,
        priority=request.priority,
        depth=request.depth,
        deadline_ns=deadline_ns,
    )


def _read_body(work: StartWork) -> tuple[Body, Sampling, Task]:
    try:
        body = msgspec.json.decode(work.request.body, type=Body)
        return body, msgspec.json.decode(body.sampling, type=Sampling), Task(body.task)
    except (msgspec.MsgspecError, ValueError) as error:
        message = f"the body of the request cannot be read: {error}"
        raise ProtocolError(message, code="invalid_request") from None


def output_deltas(outputs: Iterable[Output]) -> list[Delta]:
    """What handlers gave, in core's words."""
    return [_output_delta(output) for output in outputs]


def _output_delta(output: Output) -> Delta:
    request_id, attempt = split_key(output.key)
    data = None
    if output.payload is not None:
        payload = output.payload
        piece = Piece(msgspec.Raw(payload.json), payload.ref, output.item)
        data = msgspec.Raw(msgspec.json.encode(AnswerData(result=piece)))
    failed = output.error is not None
    return Delta(
        id=request_id,
        attempt=attempt,
        data=data,
        scheduled_ns=output.began_ns or None,
        finish="stop" if output.done and not failed else None,
        done=output.done,
        error=output.error,
        error_code=_CODES.get(output.code, Code.HANDLER_ERROR),
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
