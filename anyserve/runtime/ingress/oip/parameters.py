"""Request parameters: what routes a request, and what shapes its answer.

`capability`, `entry`, `affinity`, `priority`, `timeout` route; all others are sampling parameters
with the names they have in the HTTP door, checked by the same types. Clients that have no floats
or lists among their parameters write them as JSON in a string (`temperature="0.2"`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from anyserve.runtime.ingress.meanings import RefusedError, invalid, unsupported
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.openai.wire import Generate, decode

WANTS_FINAL: Final = "triton_enable_empty_final_response"
_IGNORED: Final = frozenset({WANTS_FINAL, "binary_data_output"})
"""Triton's own, about how responses look; ours look so that both readings hold."""
_SEQUENCES: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})
_ELSEWHERE: Final = frozenset({"model", "stream", "stream_options", "priority"})
_MAX_PRIORITY: Final = 1001
_MAX_TIMEOUT_US: Final = 24 * 3600 * 1_000_000
_decoder: Final = msgspec.json.Decoder(Generate)
_TEXTS: Final = frozenset({"stop", "user"})
"""Sampling parameters that may be a text as it is."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Routing:
    """What the parameters say about where a request goes, and how urgent it is.

    `priority` is the cluster's: lower goes first, 0 is that of requests that name none.
    """

    capability: str | None = None
    entry: str | None = None
    affinity: str | None = None
    priority: int = 0
    timeout_ms: int | None = None


def read_parameters(given: Mapping[str, pb.InferParameter]) -> tuple[Routing, dict[str, Any]]:
    """Routing, and the sampling parameters as plain values.

    Raises:
        RefusedError: a parameter has a wrong type or range, or is one that is not served.
    """
    plain = {name: _plain(name, value) for name, value in given.items() if name not in _IGNORED}
    for name in _SEQUENCES & plain.keys():
        raise unsupported(name, "is not supported: requests here have no sequences")
    routing = Routing(
        capability=_take(plain, "capability", str),
        entry=_take(plain, "entry", str),
        affinity=_take(plain, "affinity", str),
        priority=_priority(_take(plain, "priority", int)),
        timeout_ms=_timeout_ms(_take(plain, "timeout", int)),
    )
    for name in _ELSEWHERE & plain.keys():
        raise unsupported(name, "is not a parameter here")
    return routing, {name: _revived(name, value) for name, value in plain.items()}


def read_sampling(plain: Mapping[str, Any], tensor: str | None) -> Generate:
    """Sampling parameters, checked. `tensor` is the JSON object of the input tensor
    `sampling_parameters`, as clients of Triton's vLLM backend send it; it wins.

    Raises:
        RefusedError: one has a wrong type or range, or is not served.
    """
    merged: dict[str, Any] = dict(plain)
    if tensor is not None:
        try:
            merged |= msgspec.json.decode(tensor, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            message = "'sampling_parameters' must be a JSON object"
            raise invalid(message, "sampling_parameters") from None
        for name in _ELSEWHERE & merged.keys():
            raise unsupported(name, "is not a sampling parameter")
    return decode(_decoder, msgspec.json.encode(merged))


def _plain(name: str, value: pb.InferParameter) -> bool | int | float | str:
    kind = value.WhichOneof("parameter_choice")
    if kind is None:
        raise invalid(f"the parameter '{name}' has no value", name)
    found: bool | int | float | str = getattr(value, kind)
    if isinstance(found, float) and not math.isfinite(found):
        raise invalid(f"the parameter '{name}' is not a finite number", name)
    return found


def _take(plain: dict[str, Any], name: str, kind: type[T]) -> T | None:
    value = plain.pop(name, None)
    if value is None:
        return None
    if type(value) is not kind:
        wanted = "a text" if kind is str else "a whole number"
        raise invalid(f"the parameter '{name}' must be {wanted}", name)
    return value


def _priority(value: int | None) -> int:
    """Triton's 1 is the highest and 0 stands for none; the cluster's 0 is that of both."""
    if not value:
        return 0
    if not 1 <= value <= _MAX_PRIORITY:
        raise invalid(f"priority is not within 1 and {_MAX_PRIORITY}", "priority")
    return value - 1


def _timeout_ms(value_us: int | None) -> int | None:
    """Microseconds, as in Triton; 0 is no timeout."""
    if not value_us:
        return None
    if not 0 < value_us <= _MAX_TIMEOUT_US:
        raise invalid(f"timeout is not within 1 and {_MAX_TIMEOUT_US} microseconds", "timeout")
    return math.ceil(value_us / 1000)


def _revived(name: str, value: Any) -> Any:
    """What a text stands for, where the parameter is no text."""
    if not isinstance(value, str) or (name in _TEXTS and not value.startswith("[")):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        if name in _TEXTS:
            return value
        raise RefusedError(
            f"the parameter '{name}' is not JSON: {value[:40]!r}",
            code="invalid_request",
            param=name,
        ) from None
