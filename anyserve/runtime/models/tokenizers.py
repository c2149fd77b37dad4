"""Text to token ids and back, without torch or transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from anyserve.errors import AnyServeError, MissingDependencyError
from anyserve.runtime.models.detokenizer import Detokenizer

_TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError)
"""What a template raises over messages that it does not expect: it is code of the model's."""


class ChatTemplateError(AnyServeError):
    """A conversation cannot be written as a prompt of this model."""


class TextTokenizer:
    """The tokenizer of one model folder, with its chat template."""

    def __init__(self, folder: Path) -> None:
        """Read `tokenizer.json` and what else the folder says about the tokenizer.

        Raises:
            MissingDependencyError: The folder has no tokenizer.json.
        """
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise MissingDependencyError(
                f"{folder} has no tokenizer.json.",
                code="tokenizer_missing",
                hint="Only models with a fast tokenizer are supported.",
            )
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = _read_json(folder / "tokenizer_config.json")
        self.chat_template = _chat_template(folder, self._config)
        """The template's text, where the model has one."""
        self._compiled: Template | None = None
        ids = self._tokenizer.encode("").ids
        half = (len(ids) + 1) // 2
        self.prefix_ids: list[int] = ids[:half]
        """What the model wants before every text (`[CLS]`); often nothing."""
        self.suffix_ids: list[int] = ids[half:]
        """What the model wants after every text (`[SEP]`); often nothing."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return self.chat_template is not None

    def encode(self, text: str, *, wrap: bool = True) -> list[int]:
        """Token ids of a text; `wrap` adds what the model wants around it."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=wrap).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids. Not always what was encoded: a tokenizer may normalise."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """What one id alone stands for: also the part of a character, where the tokenizer is made
        of bytes (as GPT-2's is)."""
        text = self.decode([token_id], skip_special=False)
        if "\N{REPLACEMENT CHARACTER}" in text:
            signs = self._tokenizer.id_to_token(token_id) or ""
            if all(sign in _BYTE_OF for sign in signs):
                return bytes(_BYTE_OF[sign] for sign in signs)
        return text.encode()

    def detokenizer(self, stop: Sequence[str] = ()) -> Detokenizer:
        """A decoder for a stream of ids; see `Detokenizer`."""
        return Detokenizer(self.decode, stop)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool = True,
        tools: Sequence[Any] | None = None,
    ) -> str:
        """Write a conversation the way the model was trained to read it.

        Raises:
            ChatTemplateError: The model has no template, or the template refuses the messages.
        """
        if self.chat_template is None:
            raise ChatTemplateError("This model has no chat template.", code="no_chat_template")
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        tokens = {name: _token_text(self._config.get(name)) for name in names}
        try:
            if self._compiled is None:  # takes milliseconds
                self._compiled = _environment().from_string(self.chat_template)
            return self._compiled.render(
                messages=list(messages),
                tools=list(tools) if tools else None,
                add_generation_prompt=generation_prompt,
                **tokens,
            )
        except _TEMPLATE_FAILURES as error:
            raise ChatTemplateError(
                f"The chat template refused the messages: {error}", code="bad_messages"
            ) from error

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation_prompt: bool = True,
        tools: Sequence[Any] | None = None,
    ) -> list[int]:
        """Token ids of a conversation; the template has written the special tokens already."""
        text = self.render_chat(messages, generation_prompt=generation_prompt, tools=tools)
        return self.encode(text, wrap=False)


def _byte_signs() -> dict[str, int]:
    """The sign that byte-level tokenizers write for each byte: printable ones stand for themselves,
    the others for the signs from U+0100 on (GPT-2's `bytes_to_unicode`)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_BYTE_OF = _byte_signs()


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers renders templates: they come with the model, so they are not trusted."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _token_text(token: Any) -> str:
    if isinstance(token, Mapping):
        return str(token.get("content", ""))
    return "" if token is None else str(token)


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template
