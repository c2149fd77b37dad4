"""How answers are written: chunks of a stream, and whole ones, of chats and of completions.

What all chunks of a stream share is encoded once; a chunk then costs the encoding of its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from anyserve.runtime.engines.base import TokenLogprob
from anyserve.runtime.ingress.codecs import Codec
from anyserve.runtime.ingress.openai.texts import ChoiceText, Piece
from anyserve.runtime.ingress.openai.tools import ToolCall

DONE: Final = b"data: [DONE]\n\n"
_LOWEST: Final = -9999.0
"""What OpenAI says for a probability of zero: JSON has no infinity."""
_encode: Final = msgspec.json.Encoder().encode


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of a request. `cached_tokens` of the prompt came from the prefix cache."""

    prompt_tokens: int = msgspec.field(default_factory=int)
    completion_tokens: int = msgspec.field(default_factory=int)
    total_tokens: int = msgspec.field(default_factory=int)
    prompt_tokens_details: dict[str, int] | None = None


class Shape(Protocol):
    """One kind of answer to one request."""

    def chunk(self, index: int, piece: Piece) -> bytes:
        """A part of a choice, as an event."""
        ...

    def last(self, index: int, finish: str) -> bytes:
        """A choice's end, as an event."""
        ...

    def usage(self, usage: Usage) -> bytes:
        """The tokens of a stream, as an event."""
        ...

    def whole(self, choices: Sequence[tuple[ChoiceText, str]], usage: Usage) -> bytes:
        """The whole answer: each choice with the reason of its end."""
        ...


class _Base:
    """What both kinds have in common. `named` is the answer's id, `kind` the object's name."""

    def __init__(
        self, *, kind: str, named: str, model: str, created: int, codec: Codec, top: int
    ) -> None:
        self._kind = kind
        self._fields = {"id": named, "object": kind, "created": created, "model": model}
        self._codec = codec
        self._top = top
        self._head = b"data: " + _encode(self._fields)[:-1]
        self._tail = b"}\n\n"

    def with_usage(self) -> None:
        """All chunks say `usage`, null but in the last one."""
        self._tail = b',"usage":null}\n\n'

    def usage(self, usage: Usage) -> bytes:
        """The tokens of a stream, as an event."""
        return b"%b,%b,%b}\n\n" % (self._head, b'"choices":[]', b'"usage":' + _encode(usage))

    def _event(self, index: int, middle: bytes) -> bytes:
        return b'%b,"choices":[{"index":%d,%b}]%b' % (self._head, index, middle, self._tail)

    def _text_of(self, token_id: int) -> str:
        return self._codec.token_bytes(token_id).decode("utf-8", "replace")

    def _top_of(self, one: TokenLogprob) -> list[tuple[int, float]]:
        return sorted(one.top, key=lambda pair: -pair[1])[: self._top]


class ChatShape(_Base):
    """`chat.completion` and its chunks."""

    def __init__(
        self, *, named: str, model: str, created: int, codec: Codec, stream: bool, top: int = 0
    ) -> None:
        kind = "chat.completion.chunk" if stream else "chat.completion"
        super().__init__(kind=kind, named=named, model=model, created=created, codec=codec, top=top)
        self._named = named
        self._begun: set[int] = set()

    def chunk(self, index: int, piece: Piece) -> bytes:
        """A part of a choice; its first one names the role."""
        role = b""
        if index not in self._begun:
            self._begun.add(index)
            role = b'"role":"assistant",'
        content = b'"content":' + _encode(piece.text)
        if piece.calls:
            content = (content + b"," if piece.text else b"") + self._calls(index, piece.calls)
        logprobs = b"null"
        if piece.logprobs:
            logprobs = _encode({"content": [self._entry(one) for one in piece.logprobs]})
        middle = b'"delta":{%b%b},"logprobs":%b,"finish_reason":null' % (role, content, logprobs)
        return self._event(index, middle)

    def last(self, index: int, finish: str) -> bytes:
        """A choice's end."""
        role = b""
        if index not in self._begun:
            role = b'"role":"assistant","content":""'
        return self._event(
            index, b'"delta":{%b},"logprobs":null,"finish_reason":%b' % (role, _encode(finish))
        )

    def whole(self, choices: Sequence[tuple[ChoiceText, str]], usage: Usage) -> bytes:
        """The whole answer."""
        shown = [
            {
                "index": index,
                "message": self._message(index, choice.whole),
                "logprobs": {"content": [self._entry(one) for one in choice.whole.logprobs]}
                if choice.whole.logprobs
                else None,
                "finish_reason": finish,
            }
            for index, (choice, finish) in enumerate(choices)
        ]
        return _encode({**self._fields, "choices": shown, "usage": usage})

    def _message(self, index: int, piece: Piece) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": piece.text, "refusal": None}
        if piece.calls:
            message["content"] = piece.text or None
            message["tool_calls"] = [self._call(index, call) for call in piece.calls]
        return message

    def _calls(self, index: int, calls: list[ToolCall]) -> bytes:
        shown = [{"index": call.index, **self._call(index, call)} for call in calls]
        return b'"tool_calls":' + _encode(shown)

    def _call(self, index: int, call: ToolCall) -> dict[str, Any]:
        return {
            "id": f"call_{self._named.removeprefix('chatcmpl-')}-{index}-{call.index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }

    def _entry(self, one: TokenLogprob) -> dict[str, Any]:
        top = [self._pair(token, logprob) for token, logprob in self._top_of(one)]
        return {**self._pair(one.token_id, one.logprob), "top_logprobs": top}

    def _pair(self, token_id: int, logprob: float) -> dict[str, Any]:
        raw = self._codec.token_bytes(token_id)
        text = raw.decode("utf-8", "replace")
        return {"token": text, "logprob": max(logprob, _LOWEST), "bytes": list(raw)}


class CompletionShape(_Base):
    """`text_completion`, whole or in chunks."""

    def __init__(
        self, *, named: str, model: str, created: int, codec: Codec, top: int | None = None
    ) -> None:
        super().__init__(
            kind="text_completion",
            named=named,
            model=model,
            created=created,
            codec=codec,
            top=top or 0,
        )
        self._offsets: dict[int, int] = {}

    def chunk(self, index: int, piece: Piece) -> bytes:
        """A part of a choice."""
        logprobs = b"null"
        if piece.logprobs:
            start = self._offsets.get(index, 0)
            shown, end = self._table(piece.logprobs, start)
            self._offsets[index] = end
            logprobs = _encode(shown)
        middle = b'"text":%b,"logprobs":%b,"finish_reason":null' % (_encode(piece.text), logprobs)
        return self._event(index, middle)

    def last(self, index: int, finish: str) -> bytes:
        """A choice's end."""
        return self._event(index, b'"text":"","logprobs":null,"finish_reason":' + _encode(finish))

    def whole(self, choices: Sequence[tuple[ChoiceText, str]], usage: Usage) -> bytes:
        """The whole answer."""
        shown = [
            {
                "index": index,
                "text": choice.whole.text,
                "logprobs": self._table(choice.whole.logprobs, 0)[0]
                if choice.whole.logprobs
                else None,
                "finish_reason": finish,
            }
            for index, (choice, finish) in enumerate(choices)
        ]
        return _encode({**self._fields, "choices": shown, "usage": usage})

    def _table(self, logprobs: list[TokenLogprob], start: int) -> tuple[dict[str, Any], int]:
        texts = [self._text_of(one.token_id) for one in logprobs]
        offsets = [start]
        for text in texts:
            offsets.append(offsets[-1] + len(text))
        tops = [
            {self._text_of(token): max(logprob, _LOWEST) for token, logprob in self._top_of(one)}
            for one in logprobs
        ]
        return {
            "tokens": texts,
            "token_logprobs": [max(one.logprob, _LOWEST) for one in logprobs],
            "top_logprobs": tops if self._top else None,
            "text_offset": offsets[:-1],
        }, offsets[-1]
