"""Text to token ids and back, for whoever offers requests to a cluster's engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anyserve.core.spec import EngineSpec
from anyserve.errors import AnyServeError
from anyserve.runtime.models.hub import hub_tokenizer
from anyserve.runtime.models.resolve import ModelSource, resolve_model
from anyserve.runtime.models.tokenizers import TextTokenizer


class Codec:
    """Text to ids and back: the model's own tokenizer, or bytes where nothing real computes."""

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = None if tokenizer is None else tokenizer.detokenizer()

    def encode(self, text: str, *, chat: bool) -> list[int]:
        """The prompt's token ids; `chat` applies the model's chat template if it has one."""
        if self._tokenizer is None:
            return list(text.encode())
        if chat and self._tokenizer.has_chat_template:
            return self._tokenizer.encode_chat([{"role": "user", "content": text}])
        return self._tokenizer.encode(text)

    def push(self, ids: Sequence[int]) -> str:
        """The text that is certain after these tokens."""
        if self._detokenizer is None:
            return bytes(token & 0xFF for token in ids).decode("utf-8", "replace")
        return self._detokenizer.push(ids)

    def finish(self) -> str:
        """The rest of the text."""
        return "" if self._detokenizer is None else self._detokenizer.finish()


def load_tokenizer(engine: EngineSpec) -> TextTokenizer | None:
    """The tokenizer of an engine's model; None where none is at hand, and nothing real computes or
    the model is one of a hub that cannot be reached. May block for seconds.

    Raises:
        AnyServeError: a model of vLLM's is not there.
    """
    if engine.model is None:
        return None
    try:
        model = resolve_model(engine.model)
        if model.tokenizer_path is not None:
            return TextTokenizer(Path(model.path))
        if model.source is ModelSource.HUB and engine.kind == "vllm":
            folder = hub_tokenizer(model.path)
            return None if folder is None else TextTokenizer(folder)
    except AnyServeError:
        if engine.kind == "vllm":
            raise
    return None
