"""Rebuilds tokenizer.json, tokenizer_config.json and the chat template from GGUF metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_CONTROL = 3  # GGUF's token type of special tokens
# How the pretokenizers that GGUF names split text; smollm splits every digit off first.
_SPLITS_DIGITS = {"smollm": True, "gpt-2": False, "default": False}


def write_tokenizer(meta: Mapping[str, Any], target: Path) -> None:
    """Write the tokenizer files into `target`.

    Raises:
        ValueError: The vocabulary is of a kind that is not byte-level BPE as SmolLM and GPT-2 use.
    """
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in _SPLITS_DIGITS:
        raise ValueError(f"tokenizer of kind {kind}/{pre} is not supported")
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    tokenizer = _byte_level_bpe(meta, tokens, split_digits=_SPLITS_DIGITS[pre])
    tokenizer.save(str(target / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": meta["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "bos_token": _token(meta, tokens, "bos"),
        "eos_token": _token(meta, tokens, "eos"),
        "pad_token": _token(meta, tokens, "padding"),
        "unk_token": _token(meta, tokens, "unknown"),
        "chat_template": meta.get("tokenizer.chat_template"),
    }
    kept = {key: value for key, value in config.items() if value is not None}
    (target / "tokenizer_config.json").write_text(json.dumps(kept, indent=2) + "\n")


def _byte_level_bpe(meta: Mapping[str, Any], tokens: list[str], *, split_digits: bool) -> Tokenizer:
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([digits, byte_level]) if split_digits else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    types: list[int] = meta["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == _CONTROL
        ]
    )
    return tokenizer


def _token(meta: Mapping[str, Any], tokens: list[str], role: str) -> str | None:
    index = meta.get(f"tokenizer.ggml.{role}_token_id")
    return None if index is None else tokens[index]
