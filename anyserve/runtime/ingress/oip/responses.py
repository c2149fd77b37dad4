"""What all responses have: names, and the parameters that say who served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from anyserve.runtime.ingress.front import Call
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.asking import VERSION, Asked

FINAL: Final = "triton_final_response"
Parameter = str | int | bool


def begin_response(asked: Asked, said: Mapping[str, Parameter]) -> pb.ModelInferResponse:
    """A response without outputs yet; `said` are its parameters."""
    response = pb.ModelInferResponse(model_name=asked.model, model_version=VERSION, id=asked.id)
    for name, value in said.items():
        set_parameter(response.parameters[name], value)
    return response


def served_by(call: Call) -> Mapping[str, Parameter]:
    """Who serves a call, as far as that is known."""
    served = call.served
    if served is None:
        return {"request_id": call.id}
    return {
        "request_id": served.request_id,
        "replica": served.replica,
        "capability": served.capability,
        "hops": served.hops,
    }


def set_parameter(parameter: pb.InferParameter, value: Parameter) -> None:
    """Set a parameter of a response, by the type of its value."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    else:
        parameter.string_param = value
