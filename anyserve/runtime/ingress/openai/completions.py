"""`POST /v1/completions`."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from anyserve.runtime.engines.base import Task
from anyserve.runtime.ingress.front import Front
from anyserve.runtime.ingress.http.exchange import Exchange
from anyserve.runtime.ingress.meanings import invalid, unsupported
from anyserve.runtime.ingress.openai.asking import (
    find_route,
    guide_of,
    make_draft,
    make_sampling,
    read_wishes,
    stops_of,
)
from anyserve.runtime.ingress.openai.body import read_body
from anyserve.runtime.ingress.openai.generate import Job, answer
from anyserve.runtime.ingress.openai.inputs import encode_inputs
from anyserve.runtime.ingress.openai.shapes import CompletionShape
from anyserve.runtime.ingress.openai.texts import TextRules
from anyserve.runtime.ingress.openai.wire import MAX_CHOICES, CompletionRequest, decode

_DECODER: Final = msgspec.json.Decoder(CompletionRequest)
DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's."""


async def serve(front: Front, exchange: Exchange) -> None:
    """Go on with a text, or with several."""
    asked = decode(_DECODER, await read_body(front, exchange))
    _refuse_unserved(asked)
    wishes = read_wishes(exchange, front, asked.priority)
    route = find_route(front, wishes, asked.model, Task.GENERATE)
    codec = front.codec(route)
    sampling = make_sampling(
        asked,
        route,
        max_tokens=asked.max_tokens or DEFAULT_MAX_TOKENS,
        logprobs=asked.logprobs,
        guide=guide_of(asked.response_format, asked.structured_outputs),
    )
    most = MAX_CHOICES // sampling.n
    prompts = await encode_inputs(asked.prompt, codec, name="prompt", most=most)
    stream, options = bool(asked.stream), asked.stream_options
    shape = CompletionShape(
        named=f"cmpl-{front.next_name()}",
        model=asked.model or route.model,
        created=int(time.time()),
        codec=codec,
        top=asked.logprobs,
    )
    usage = stream and options is not None and bool(options.include_usage)
    if usage:
        shape.with_usage()
    job = Job(
        drafts=[make_draft(route, wishes, prompt, sampling) for prompt in prompts],
        n=sampling.n,
        codec=codec,
        rules=TextRules(
            stops=stops_of(asked),
            stop_ids=frozenset(sampling.stop_token_ids),
            skip_special=asked.skip_special_tokens is not False,
            logprobs=asked.logprobs is not None,
        ),
        shape=shape,
        stream=stream,
        usage=usage,
        first_token_ms=wishes.first_token_ms,
    )
    await answer(front, exchange, job)


def _refuse_unserved(asked: CompletionRequest) -> None:
    if asked.echo:
        raise unsupported("echo")
    if asked.suffix:
        raise unsupported("suffix")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise unsupported("best_of", "other than n is not supported here")
    if asked.stream_options is not None and not asked.stream:
        raise invalid("stream_options needs stream", "stream_options")
