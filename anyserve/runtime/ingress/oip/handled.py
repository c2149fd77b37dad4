"""Answers of handlers: JSON in the BYTES tensor `result`, one element for each piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from anyserve.runtime.ingress.front import Call, Front
from anyserve.runtime.ingress.handlers import HandlerAnswer
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.asking import Asked
from anyserve.runtime.ingress.oip.responses import FINAL, begin_response, served_by
from anyserve.runtime.ingress.oip.tensors import Outputs


async def handled(front: Front, asked: Asked) -> pb.ModelInferResponse:
    """The whole answer: one element, or all items of a generator.

    Raises:
        RefusedError: it was not completed.
    """
    with front.offer(asked.draft, streamed=True) as call:
        answer = HandlerAnswer(front.objects, keep_items=True)
        while frames := await call.batch():
            async for _ in answer.take(frames):
                pass
        await _completed(call)
        return _response(asked, answer.parts, call)


async def handled_pieces(front: Front, asked: Asked) -> AsyncGenerator[pb.ModelInferResponse, None]:
    """Each item of a generator as it comes, and an empty last one; a plain result is the last one.

    Raises:
        RefusedError: it was not completed; what had come before was given.
    """
    with front.offer(asked.draft, streamed=True) as call:
        answer = HandlerAnswer(front.objects, keep_items=False)
        while frames := await call.batch():
            async for part in answer.take(frames):
                if answer.items:
                    yield _response(asked, [part])
        await _completed(call)
        yield _response(asked, answer.parts, call)


async def _completed(call: Call) -> None:
    refusal = await call.refusal()
    if refusal is not None:
        raise refusal


def _response(
    asked: Asked, parts: Sequence[bytes], call: Call | None = None
) -> pb.ModelInferResponse:
    """A response; the last one where the call is given."""
    said = {FINAL: False} if call is None else {FINAL: True, **served_by(call)}
    response = begin_response(asked, said)
    Outputs(response, raw=asked.raw).binary("result", parts)
    return response
