"""`POST /v1/chat/completions`."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec

from anyserve.runtime.engines.base import Task
from anyserve.runtime.ingress.codecs import Codec
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
from anyserve.runtime.ingress.openai.inputs import LONG_TEXT
from anyserve.runtime.ingress.openai.shapes import ChatShape
from anyserve.runtime.ingress.openai.texts import TextRules
from anyserve.runtime.ingress.openai.wire import ChatRequest, Message, decode

_DECODER: Final = msgspec.json.Decoder(ChatRequest)


async def serve(front: Front, exchange: Exchange) -> None:
    """Answer a conversation."""
    asked = decode(_DECODER, await read_body(front, exchange))
    _refuse_unserved(asked)
    wishes = read_wishes(exchange, front, asked.priority)
    route = find_route(front, wishes, asked.model, Task.GENERATE)
    codec = front.codec(route)
    tools = _tools(asked, codec)
    prompt = await _encode(asked, codec, tools)
    wanted = asked.max_completion_tokens or asked.max_tokens
    sampling = make_sampling(
        asked,
        route,
        max_tokens=wanted or front.directory.default_max_tokens(route, len(prompt)),
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        guide=guide_of(asked.response_format, asked.structured_outputs),
    )
    draft = make_draft(route, wishes, prompt, sampling, affinity=asked.prompt_cache_key)
    stream = bool(asked.stream)
    options = asked.stream_options
    shape = ChatShape(
        named=f"chatcmpl-{front.next_name()}",
        model=asked.model or route.model,
        created=int(time.time()),
        codec=codec,
        stream=stream,
        top=asked.top_logprobs or 0,
    )
    usage = stream and options is not None and bool(options.include_usage)
    if usage:
        shape.with_usage()
    job = Job(
        drafts=[draft],
        n=sampling.n,
        codec=codec,
        rules=TextRules(
            stops=stops_of(asked),
            stop_ids=frozenset(sampling.stop_token_ids),
            skip_special=asked.skip_special_tokens is not False,
            logprobs=bool(asked.logprobs),
            tools=bool(tools),
        ),
        shape=shape,
        stream=stream,
        usage=usage,
        first_token_ms=wishes.first_token_ms,
    )
    await answer(front, exchange, job)


def _refuse_unserved(asked: ChatRequest) -> None:
    if asked.modalities not in (None, ["text"]):
        raise unsupported("modalities", "other than text are not supported here")
    if asked.store:
        raise unsupported("store")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise invalid("top_logprobs needs logprobs", "top_logprobs")
    if asked.stream_options is not None and not asked.stream:
        raise invalid("stream_options needs stream", "stream_options")


def _tools(asked: ChatRequest, codec: Codec) -> list[Any] | None:
    """The tools that the model is told of."""
    choice = asked.tool_choice
    if asked.parallel_tool_calls is False and asked.tools:
        raise unsupported("parallel_tool_calls", "cannot be turned off here")
    if not asked.tools:
        if choice not in (None, "none", "auto"):
            raise invalid("tool_choice needs tools", "tool_choice")
        return None
    if choice not in (None, "none", "auto"):
        raise unsupported("tool_choice", "other than auto and none is not supported here")
    if choice == "none":
        return None
    if codec.tool_format is None:
        raise unsupported("tools", "are not supported: how this model writes calls is not known")
    return asked.tools


async def _encode(asked: ChatRequest, codec: Codec, tools: list[Any] | None) -> list[int]:
    messages = [_message(one, index) for index, one in enumerate(asked.messages)]
    size = sum(len(str(message["content"] or "")) for message in messages)
    if size > LONG_TEXT or tools:
        ids = await asyncio.to_thread(codec.encode_chat, messages, tools)
    else:
        ids = codec.encode_chat(messages, tools)
    if not ids:
        raise invalid("the conversation is empty", "messages")
    return ids


def _message(message: Message, index: int) -> dict[str, Any]:
    """A message as chat templates read it."""
    content = message.content
    if isinstance(content, list):
        content = "".join(_part(part, index, place) for place, part in enumerate(content))
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": content or ""}
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["tool_calls"] = message.tool_calls
    return plain


def _part(part: Any, index: int, place: int) -> str:
    where = f"messages[{index}].content[{place}]"
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise invalid("a part of a message has a type", where)
    if part["type"] not in {"text", "input_text"}:
        raise unsupported(f"{where}.type", "is not text; nothing else is supported here")
    text = part.get("text")
    if not isinstance(text, str):
        raise invalid("a part of type text has a text", where)
    return text
