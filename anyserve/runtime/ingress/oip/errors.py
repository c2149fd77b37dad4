"""Refusals in gRPC's words: a status, a sentence, and the stable code beside it."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.responses import FINAL, set_parameter

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


def status_of(refusal: RefusedError) -> grpc.StatusCode:
    """The status of the shared table."""
    return _STATUS[int(refusal.grpc_status)]


def metadata_of(refusal: RefusedError) -> tuple[tuple[str, str], ...]:
    """What a client's program reads: the code, the parameter to blame, when a retry may help."""
    said = {
        "anyserve-code": refusal.code,
        "anyserve-param": refusal.param,
        "retry-after-ms": refusal.retry_after_ms,
        "anyserve-request-id": refusal.request_id,
    }
    # Values of metadata are printable ASCII.
    return tuple(
        (name, str(value).encode("ascii", "replace").decode())
        for name, value in said.items()
        if value is not None
    )


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: RefusedError) -> NoReturn:
    """End a call with this refusal."""
    await context.abort(status_of(refusal), refusal.message, metadata_of(refusal))
    raise AssertionError  # pragma: no cover - abort has raised


def broken_off(request: pb.ModelInferRequest, refusal: RefusedError) -> pb.ModelStreamInferResponse:
    """The last response to one request of a stream that failed; the stream itself goes on."""
    response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    said: dict[str, str | int | None] = {
        "error_code": refusal.code,
        "error_status": status_of(refusal).name,
        "error_param": refusal.param,
        "retry_after_ms": refusal.retry_after_ms,
        "request_id": refusal.request_id,
    }
    for name, value in said.items():
        if value is not None:
            set_parameter(response.parameters[name], value)
    set_parameter(response.parameters[FINAL], value=True)
    text = f"[{refusal.code}] {refusal.message}"
    return pb.ModelStreamInferResponse(error_message=text, infer_response=response)
