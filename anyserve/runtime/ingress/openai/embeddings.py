"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from anyserve.runtime.engines.base import Sampling, Task
from anyserve.runtime.ingress.front import Call, Front
from anyserve.runtime.ingress.http.exchange import Exchange, served_headers
from anyserve.runtime.ingress.meanings import RefusedError, unsupported
from anyserve.runtime.ingress.openai.asking import find_route, make_draft, read_wishes
from anyserve.runtime.ingress.openai.body import read_body
from anyserve.runtime.ingress.openai.inputs import encode_inputs
from anyserve.runtime.ingress.openai.wire import EmbeddingRequest, decode

_DECODER: Final = msgspec.json.Decoder(EmbeddingRequest)
MAX_INPUTS: Final = 2048
"""OpenAI's bound on the inputs of one request."""


class _AnswerData(msgspec.Struct):
    embedding: list[float] | None = None


_data_decoder: Final = msgspec.json.Decoder(_AnswerData)


async def serve(front: Front, exchange: Exchange) -> None:
    """Vectors of texts; each input is a request of its own in the cluster."""
    asked = decode(_DECODER, await read_body(front, exchange))
    if asked.dimensions is not None:
        raise unsupported("dimensions")
    wishes = read_wishes(exchange, front, asked.priority)
    route = find_route(front, wishes, asked.model, Task.EMBED)
    codec = front.codec(route)
    inputs = await encode_inputs(asked.input, codec, name="input", most=MAX_INPUTS)
    drafts = [make_draft(route, wishes, ids, Sampling(), task=Task.EMBED) for ids in inputs]
    with ExitStack() as open_calls:
        calls = [
            open_calls.enter_context(front.offer(draft, first_token_ms=wishes.first_token_ms))
            for draft in drafts
        ]
        exchange.cancel_with_client(*calls)
        vectors = [await _vector(call) for call in calls]
    binary = asked.encoding_format == "base64"
    tokens = sum(map(len, inputs))
    body = {
        "object": "list",
        "data": _data(vectors, binary=binary),
        "model": asked.model or route.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    served = calls[0].served
    headers = [] if served is None else served_headers(served)
    await exchange.answer(200, msgspec.json.encode(body), headers)


async def _vector(call: Call) -> list[float]:
    refusal = await call.refusal()
    if refusal is not None:
        raise refusal
    for data in call.handle.data:
        vector = _data_decoder.decode(data).embedding
        if vector is not None:
            return vector
    text = "the engine completed the request without a vector"
    raise RefusedError(text, code="engine_error", request_id=call.id)


def _data(vectors: Sequence[list[float]], *, binary: bool) -> list[dict[str, Any]]:
    return [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if binary else vector,
        }
        for index, vector in enumerate(vectors)
    ]


def _base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI has them."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
