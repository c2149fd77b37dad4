"""From a JSON payload to a draft: what a call to an engine's capability says, and what comes back.

Whoever asks by JSON (a handler's `ctx.call`, `anyserve send --json-payload`) need not know whether
an engine or a handler answers. A handler gets the payload as it is; for an engine it is read as
`EngineAsk`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from anyserve.app import typed
from anyserve.core.capability import Ladder
from anyserve.core.messages import Frame
from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.errors import AnyServeError, InvalidRequestError
from anyserve.runtime.answers import Piece, read_answer
from anyserve.runtime.engines.base import Sampling, Task
from anyserve.runtime.models.codec import Codec
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.origin.client import Draft

_TOKENS: Final = 128


class EngineAsk(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of an engine: one of `prompt`, `messages` and `prompt_ids`, and how to sample.

    A text by itself is a `prompt`, a list by itself is `messages`. These go through the model's
    chat template.
    """

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    prompt_ids: list[int] | None = None
    max_tokens: int = _TOKENS


def engine_of(cluster: ClusterSpec, capability: str) -> EngineSpec | None:
    """The engine that will compute an answer: of the lowest rung that is offered.

    None where a handler serves it, or nobody that the scenario knows of (then a replica that joined
    later does, which runs an app).
    """
    for rung in Ladder(cluster.ladder.upgrades).rungs(capability):
        for replica in cluster.replicas:
            if any(offer.capability == rung for offer in replica.offers):
                by_app = replica.app is not None and rung in replica.app.serves
                return None if by_app else replica.engine
    return None


def read_ask(payload: bytes | memoryview) -> EngineAsk:
    """What a payload asks of an engine.

    Raises:
        InvalidRequestError: it says nothing that an engine understands.
    """
    value = typed.decode(payload, Any)
    if isinstance(value, str):
        return EngineAsk(prompt=value)
    if isinstance(value, list):
        value = {"messages": value}
    try:
        ask = msgspec.convert(value, EngineAsk)
    except msgspec.ValidationError as error:
        hint = "an engine takes a text, messages, or a mapping with prompt, messages or prompt_ids"
        raise InvalidRequestError(str(error), hint=hint) from None
    given = [one for one in (ask.prompt, ask.messages, ask.prompt_ids) if one is not None]
    if len(given) != 1:
        raise InvalidRequestError("give one of prompt, messages and prompt_ids", pointer="$")
    if ask.n != 1:
        raise InvalidRequestError("one choice at a time: n must be 1", pointer="$.n")
    return ask


def engine_draft(
    capability: str, engine: EngineSpec, ask: EngineAsk, tokenizer: TextTokenizer | None
) -> Draft:
    """The request for the engine.

    Raises:
        InvalidRequestError: its chat template refuses the messages.
    """
    fields = {name: getattr(ask, name) for name in Sampling.__struct_fields__}
    return Draft(
        capability=capability,
        prompt_ids=_prompt_ids(ask, tokenizer),
        max_tokens=ask.max_tokens,
        task=Task(engine.task),
        sampling=Sampling(**fields),
    )


def _prompt_ids(ask: EngineAsk, tokenizer: TextTokenizer | None) -> list[int]:
    if ask.prompt_ids is not None:
        return ask.prompt_ids
    if ask.prompt is not None:
        return Codec(tokenizer).encode(ask.prompt, chat=False)
    messages = ask.messages or []
    if tokenizer is not None and tokenizer.has_chat_template:
        try:
            return tokenizer.encode_chat(messages)
        except AnyServeError as error:
            raise InvalidRequestError(error.message, pointer="$.messages") from None
    lines = [f"{one.get('role', 'user')}: {one.get('content', '')}" for one in messages]
    return Codec(tokenizer).encode("\n".join(lines), chat=False)


class EngineAnswer:
    """Puts an engine's frames into the JSON that the asker gets: a whole answer, or pieces."""

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self._codec = Codec(tokenizer)
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._embedding: list[float] | None = None

    def take(self, frame: Frame) -> Iterator[bytes]:
        """Fold one frame; a piece of the stream where there is something to say."""
        if frame.has_data:
            self._embedding = read_answer(frame.data).embedding or self._embedding
        if frame.tokens:
            self._tokens += frame.tokens
            yield from self._say(self._codec.push(frame.tokens), frame.tokens)

    def finish(self) -> Iterator[bytes]:
        """The stream has ended: what was held back of its text."""
        rest = self._codec.finish()
        if rest:
            yield from self._say(rest, [])
        if self._embedding is not None:
            yield msgspec.json.encode({"embedding": self._embedding})

    def _say(self, text: str, tokens: list[int]) -> Iterator[bytes]:
        self._text.append(text)
        yield msgspec.json.encode({"text": text, "tokens": tokens})

    def whole(self, finish: str | None) -> bytes:
        """All of it as one value."""
        if self._embedding is not None:
            return msgspec.json.encode({"embedding": self._embedding})
        return msgspec.json.encode(
            {"text": "".join(self._text), "tokens": self._tokens, "finish": finish}
        )


def handler_pieces(frame: Frame) -> Iterator[Piece]:
    """What a handler said in one frame."""
    if frame.has_data and (result := read_answer(frame.data).result) is not None:
        yield result
