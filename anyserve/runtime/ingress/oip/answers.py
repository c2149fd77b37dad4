"""Answers: the whole one, or as a stream of pieces whose last one says how it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from anyserve.core.messages import Frame
from anyserve.runtime.engines.base import Task
from anyserve.runtime.ingress.front import Call, Front
from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.asking import Asked
from anyserve.runtime.ingress.oip.handled import handled, handled_pieces
from anyserve.runtime.ingress.oip.responses import FINAL, Parameter, begin_response, served_by
from anyserve.runtime.ingress.oip.tensors import Outputs
from anyserve.runtime.ingress.openai.texts import ChoiceText


class _AnswerData(msgspec.Struct):
    embedding: list[float] | None = None


_data: Final = msgspec.json.Decoder(_AnswerData)


async def whole(front: Front, asked: Asked) -> pb.ModelInferResponse:
    """Offer a request, and wait for all of its answer.

    Raises:
        RefusedError: it was not completed.
    """
    if asked.task is Task.HANDLE:
        return await handled(front, asked)
    # Stop strings are found here, as tokens come, so that the engine need not go on.
    streamed = bool(asked.rules.stops or asked.rules.stop_ids)
    with front.offer(asked.draft, streamed=streamed) as call:
        answer = _Answer(asked, call)
        while streamed and (frames := await call.batch()):
            answer.take(frames)
        await answer.completed()
        if not streamed:
            answer.take_all()
        return answer.last()


async def pieces(front: Front, asked: Asked) -> AsyncGenerator[pb.ModelInferResponse, None]:
    """Offer a request, and give its answer as it comes; the last piece is marked as final.

    Raises:
        RefusedError: it was not completed; what had come before was given.
    """
    if asked.task is Task.EMBED or not asked.stream:
        yield await whole(front, asked)
        return
    if asked.task is Task.HANDLE:
        async with aclosing(handled_pieces(front, asked)) as answers:
            async for piece in answers:
                yield piece
        return
    with front.offer(asked.draft, streamed=True) as call:
        answer = _Answer(asked, call)
        while frames := await call.batch():
            answer.take(frames)
            if not answer.ended and answer.fresh:
                yield answer.piece()
        if answer.fresh and not answer.ended_well:
            yield answer.piece()  # the tokens before a failure reached us: the client gets them
        await answer.completed()
        yield answer.last()


class _Answer:
    """One call's answer as it grows: texts and ids of its choices that were not yet given out."""

    def __init__(self, asked: Asked, call: Call) -> None:
        self._asked = asked
        self._call = call
        self._texts = [ChoiceText(asked.codec, asked.rules) for _ in range(asked.n)]
        self._fresh = [""] * asked.n
        self._ids: list[list[int]] = [[] for _ in range(asked.n)]
        self._enough = False

    @property
    def fresh(self) -> bool:
        """Whether there is something to give out."""
        return any(self._fresh)

    @property
    def ended(self) -> bool:
        """Whether it is over, and all that came of it was taken."""
        return self._call.over and not self._call.handle.unread

    @property
    def ended_well(self) -> bool:
        """Whether it is over, and completed."""
        return self._call.over and self._call.outcome.kind.value == "completed"

    def take(self, frames: Sequence[Frame]) -> None:
        """Read what came; ends the request once every choice has met its stop."""
        for frame in frames:
            self._fresh[frame.choice] += self._texts[frame.choice].take(frame).text
            self._ids[frame.choice] += frame.tokens
        if not self._enough and not self._call.over and all(one.stopped for one in self._texts):
            self._enough = True
            self._call.enough()

    def take_all(self) -> None:
        """Read everything that came, at its end."""
        for choice, tokens in self._call.handle.tokens.items():
            self._fresh[choice] += self._texts[choice].push(tokens).text
            self._ids[choice] += tokens

    async def completed(self) -> None:
        """Wait for the outcome.

        Raises:
            RefusedError: it is not completed.
        """
        refusal = await self._call.refusal()
        if refusal is not None:
            raise refusal

    def piece(self) -> pb.ModelInferResponse:
        """What is new, as a response that others follow."""
        return self._response({FINAL: False})

    def last(self) -> pb.ModelInferResponse:
        """The rest, who served it, and how it ended."""
        for choice, text in enumerate(self._texts):
            self._fresh[choice] += text.finish().text
        said: dict[str, Parameter] = {FINAL: True, **served_by(self._call)}
        if self._asked.task is Task.GENERATE:
            outcome = self._call.outcome
            said["finish_reason"] = ",".join(self._finishes())
            said["completion_tokens"] = outcome.n_tokens
        said["prompt_tokens"] = len(self._asked.draft.prompt_ids)
        return self._response(said)

    def _finishes(self) -> list[str]:
        outcome = self._call.outcome
        return [
            "stop"
            if text.stopped
            else (outcome.finishes[choice : choice + 1] or [""])[0] or outcome.finish or "stop"
            for choice, text in enumerate(self._texts)
        ]

    def _response(self, said: Mapping[str, Parameter]) -> pb.ModelInferResponse:
        asked = self._asked
        response = begin_response(asked, said)
        outputs = Outputs(response, raw=asked.raw)
        if "embedding" in asked.outputs:
            outputs.floats("embedding", self._vector())
        if "text_output" in asked.outputs:
            outputs.texts("text_output", self._fresh)
        if "output_ids" in asked.outputs:
            outputs.integers("output_ids", [one for ids in self._ids for one in ids])
        self._fresh = [""] * asked.n
        self._ids = [[] for _ in range(asked.n)]
        return response

    def _vector(self) -> list[float]:
        for data in self._call.handle.data:
            vector = _data.decode(data).embedding
            if vector is not None:
                return vector
        raise RefusedError("the engine completed the request without a vector", code="engine_error")
