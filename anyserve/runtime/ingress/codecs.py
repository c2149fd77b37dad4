"""Text and token ids, per model: its own tokenizer, or bytes where nothing real computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from anyserve.core.spec import EngineSpec
from anyserve.runtime.ingress.meanings import RefusedError, invalid
from anyserve.runtime.models.codec import load_tokenizer
from anyserve.runtime.models.detokenizer import Detokenizer
from anyserve.runtime.models.tokenizers import ChatTemplateError, TextTokenizer

Messages = Sequence[Mapping[str, Any]]


class Codec(Protocol):
    """Turns a model's text into ids and back."""

    @property
    def vocab_size(self) -> int:
        """Ids are below this; 0: any id goes."""
        ...

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """The model's own, where there is one."""
        ...

    @property
    def tool_format(self) -> str | None:
        """How the model writes calls of tools, where that is known (`hermes`)."""
        ...

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text; `special`: with what the model wants around it."""
        ...

    def encode_chat(self, messages: Messages, tools: Sequence[Any] | None = None) -> list[int]:
        """Ids of a conversation, written as the model was trained to read it.

        Raises:
            RefusedError: the model's template refuses the messages.
        """
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What one id alone reads as."""
        ...

    def detokenizer(self, stop: Sequence[str] = (), *, skip_special: bool = True) -> Detokenizer:
        """A decoder for one stream of ids."""
        ...


class ModelCodec:
    """The tokenizer of a model folder."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer: TextTokenizer | None = tokenizer
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.tool_format = tool_format(tokenizer.chat_template or "")

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text."""
        return self._tokenizer.encode(text, wrap=special)

    def encode_chat(self, messages: Messages, tools: Sequence[Any] | None = None) -> list[int]:
        """Ids of a conversation; without a template its texts, one a line."""
        if not self._tokenizer.has_chat_template:
            return self._tokenizer.encode(_plain(messages))
        try:
            return self._tokenizer.encode_chat(messages, tools=tools)
        except ChatTemplateError as error:
            raise invalid(error.message, "messages") from None

    def token_bytes(self, token_id: int) -> bytes:
        """What one id alone stands for, be it a part of a character."""
        return self._tokenizer.token_bytes(token_id)

    def detokenizer(self, stop: Sequence[str] = (), *, skip_special: bool = True) -> Detokenizer:
        """A decoder for one stream of ids."""
        decode = self._tokenizer.decode

        def with_special(ids: Sequence[int]) -> str:
            return decode(ids, skip_special=False)

        return Detokenizer(decode if skip_special else with_special, stop)


def tool_format(template: str) -> str | None:
    """How a model with this chat template writes calls of tools; None: not known."""
    return "hermes" if "tools" in template and "<tool_call>" in template else None


class ByteCodec:
    """One token a byte: for engines that only imitate a model, where no tokenizer is at hand."""

    vocab_size = 0
    tool_format: str | None = None
    tokenizer: TextTokenizer | None = None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """UTF-8."""
        del special
        return list(text.encode("utf-8", "replace"))

    def encode_chat(self, messages: Messages, tools: Sequence[Any] | None = None) -> list[int]:
        """The texts of the messages, one a line."""
        del tools
        return self.encode(_plain(messages))

    def token_bytes(self, token_id: int) -> bytes:
        """That byte."""
        return bytes((token_id & 0xFF,))

    def detokenizer(self, stop: Sequence[str] = (), *, skip_special: bool = True) -> Detokenizer:
        """A decoder for one stream of ids."""
        del skip_special
        return Detokenizer(_bytes_to_text, stop)


def load_codec(engine: EngineSpec) -> Codec | None:
    """The codec of an engine's model; None where a real model has no tokenizer at hand.

    Blocks, for the first use of a model even for seconds: call it off the event loop.
    """
    tokenizer = load_tokenizer(engine)
    if tokenizer is not None:
        return ModelCodec(tokenizer)
    return None if engine.kind == "vllm" else ByteCodec()


def no_tokenizer(model: str) -> RefusedError:
    """A text was sent to a model whose tokenizer is not here."""
    return RefusedError(
        f"the tokenizer of {model} is not on this machine; send the prompt as token ids",
        code="no_tokenizer",
        param="model",
    )


def _plain(messages: Messages) -> str:
    return "\n".join(str(message.get("content") or "") for message in messages)


def _bytes_to_text(ids: Sequence[int]) -> str:
    return bytes(token & 0xFF for token in ids).decode("utf-8", "replace")
