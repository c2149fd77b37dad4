"""From drafts to an answer: offered together, streamed as they come or collected, never cut short
in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from anyserve.core.effects import Outcome
from anyserve.core.messages import Frame
from anyserve.runtime.ingress.codecs import Codec
from anyserve.runtime.ingress.front import Call, Front
from anyserve.runtime.ingress.http.errors import error_body
from anyserve.runtime.ingress.http.exchange import Exchange, served_headers
from anyserve.runtime.ingress.meanings import RefusedError
from anyserve.runtime.ingress.openai.shapes import DONE, Shape, Usage
from anyserve.runtime.ingress.openai.texts import ChoiceText, TextRules
from anyserve.runtime.origin import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request of a client: a draft for each of its prompts, `n` choices of each.

    `usage`: a stream ends with the count of its tokens.
    """

    drafts: Sequence[Draft]
    n: int
    codec: Codec
    rules: TextRules
    shape: Shape
    stream: bool
    usage: bool = False
    first_token_ms: int | None = None


async def answer(front: Front, exchange: Exchange, job: Job) -> None:
    """Offer it, and answer.

    Raises:
        RefusedError: it was not completed, and nothing of an answer has left.
    """
    # Frames are read as they come where a stop may have to be found here, or where more than
    # token ids comes; else the whole answer is read at its end.
    rules = job.rules
    streamed = job.stream or rules.logprobs or bool(rules.stops or rules.stop_ids)
    with ExitStack() as open_calls:
        calls = [
            open_calls.enter_context(
                front.offer(draft, streamed=streamed, first_token_ms=job.first_token_ms)
            )
            for draft in job.drafts
        ]
        exchange.cancel_with_client(*calls)
        reading = [_Reading(call, index * job.n, job) for index, call in enumerate(calls)]
        if job.stream:
            await _Streaming(exchange, job, reading).run()
        else:
            await _collect(exchange, job, reading, streamed=streamed)


class _Reading:
    """One call and the texts of its choices; `first` is the index of its first choice."""

    def __init__(self, call: Call, first: int, job: Job) -> None:
        self.call = call
        self.first = first
        self.texts = [ChoiceText(job.codec, job.rules) for _ in range(job.n)]
        self._enough = False

    @property
    def ended(self) -> bool:
        """Whether it is over, and all that came of it was read."""
        return self.call.over and not self.call.handle.unread

    def note_stops(self) -> None:
        """End the request where every choice has met its stop and the engine goes on."""
        if not self._enough and not self.call.over and all(text.stopped for text in self.texts):
            self._enough = True
            self.call.enough()

    def finishes(self) -> list[str]:
        """Why each choice ended, in OpenAI's words."""
        end = self.call.outcome
        return [_finish(text, end, choice) for choice, text in enumerate(self.texts)]


async def _collect(
    exchange: Exchange, job: Job, readings: Sequence[_Reading], *, streamed: bool
) -> None:
    choices: list[tuple[ChoiceText, str]] = []
    for reading in readings:
        await _read_all(reading, streamed=streamed)
        for text in reading.texts:
            text.finish()
        choices += zip(reading.texts, reading.finishes(), strict=True)
    body = job.shape.whole(choices, _usage(readings))
    served = readings[0].call.served
    await exchange.answer(200, body, served_headers(served) if served is not None else [])


async def _read_all(reading: _Reading, *, streamed: bool) -> None:
    call = reading.call
    if streamed:
        while frames := await call.batch():
            for frame in frames:
                _text_of(reading, frame).take(frame)
            reading.note_stops()
    refusal = await call.refusal()
    if refusal is not None:
        raise refusal
    if not streamed:
        for choice, tokens in call.handle.tokens.items():
            reading.texts[choice].push(tokens)


class _Streaming:
    """Writes the events of one answer; several prompts take turns as their tokens come."""

    def __init__(self, exchange: Exchange, job: Job, readings: Sequence[_Reading]) -> None:
        self._exchange = exchange
        self._job = job
        self._readings = readings
        self._beginning = asyncio.Lock()
        self._closed: set[int] = set()
        """Choices whose end has been written."""

    async def run(self) -> None:
        """Stream everything.

        Raises:
            RefusedError: it failed before anything had left.
        """
        try:
            if len(self._readings) == 1:
                last = await self._pump(self._readings[0])
            else:
                last = await self._pump_all()
        except RefusedError as refusal:
            if not self._exchange.started:
                raise
            await self._break_off(refusal)
            return
        if self._job.usage:
            last += self._job.shape.usage(_usage(self._readings))
        await self._exchange.end_stream(last + DONE)

    async def _pump_all(self) -> bytes:
        first: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for reading in self._readings:
                    group.create_task(self._pump_and_write(reading))
        except* RefusedError as refused:
            first = refused.exceptions[0]  # raised in here, it would be a group again
        if first is not None:
            raise first
        return b""

    async def _pump_and_write(self, reading: _Reading) -> None:
        await self._exchange.write(await self._pump(reading))

    async def _pump(self, reading: _Reading) -> bytes:
        """Write what comes; returns what is to be written last."""
        parts: list[bytes] = []
        while not reading.ended:
            for frame in await reading.call.batch():
                piece = _text_of(reading, frame).take(frame)
                if piece:
                    parts.append(self._job.shape.chunk(reading.first + frame.choice, piece))
            reading.note_stops()
            if parts and not reading.ended:
                await self._begin(reading)
                await self._exchange.write(b"".join(parts))
                parts.clear()
        refusal = await reading.call.refusal()
        if refusal is not None:
            if parts:  # the tokens before the failure reached us: the client gets them, too
                await self._begin(reading)
                await self._exchange.write(b"".join(parts))
            raise refusal
        await self._begin(reading)
        return b"".join(parts) + self._ends(reading)

    def _ends(self, reading: _Reading) -> bytes:
        rests = [text.finish() for text in reading.texts]
        parts: list[bytes] = []
        for index, (rest, finish) in enumerate(
            zip(rests, reading.finishes(), strict=True), start=reading.first
        ):
            if rest:
                parts.append(self._job.shape.chunk(index, rest))
            parts.append(self._job.shape.last(index, finish))
            self._closed.add(index)
        return b"".join(parts)

    async def _begin(self, reading: _Reading) -> None:
        if self._exchange.started:
            return
        async with self._beginning:
            if not self._exchange.started:
                served = reading.call.served
                await self._exchange.begin_stream([] if served is None else served_headers(served))

    async def _break_off(self, refusal: RefusedError) -> None:
        """It broke: every open choice ends with `error`, then the error itself; no [DONE]."""
        if refusal.code == "slow_client":
            self._exchange.abort()
            return
        parts: list[bytes] = []
        texts = (text for reading in self._readings for text in reading.texts)
        for index, text in enumerate(texts):
            if index not in self._closed:
                if rest := text.finish():
                    parts.append(self._job.shape.chunk(index, rest))
                parts.append(self._job.shape.last(index, "error"))
        parts.append(b"data: %b\n\n" % error_body(refusal))
        await self._exchange.end_stream(b"".join(parts))


def _text_of(reading: _Reading, frame: Frame) -> ChoiceText:
    return reading.texts[frame.choice]


def _finish(text: ChoiceText, end: Outcome, choice: int) -> str:
    if text.stopped:
        reason = "stop"
    elif choice < len(end.finishes) and end.finishes[choice]:
        reason = end.finishes[choice]
    else:
        reason = end.finish or "stop"
    return "tool_calls" if text.whole.calls else reason


def _usage(readings: Sequence[_Reading]) -> Usage:
    prompt = sum(len(reading.call.draft.prompt_ids) for reading in readings)
    made = sum(reading.call.outcome.n_tokens for reading in readings)
    cached = [reading.call.outcome.cached_tokens for reading in readings]
    known = [count for count in cached if count is not None]
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=made,
        total_tokens=prompt + made,
        prompt_tokens_details={"cached_tokens": sum(known)} if known else None,
    )
