"""Prompts and inputs that may be a text, token ids, or several of either."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from anyserve.runtime.ingress.codecs import Codec
from anyserve.runtime.ingress.meanings import invalid

LONG_TEXT: Final = 16 * 1024
"""Characters above which a text is encoded in a thread: the loop has others to serve."""
_MAX_ID: Final = 2**31 - 1


async def encode_inputs(
    given: str | list[Any], codec: Codec, *, name: str, most: int
) -> list[list[int]]:
    """Token ids of each input.

    Raises:
        RefusedError: it is neither text nor ids, is empty, has ids the model lacks, or holds more
            than `most` inputs.
    """
    inputs = _split(given, name)
    if len(inputs) > most:
        raise invalid(f"{len(inputs)} inputs, at most {most} go in one request", name)
    encoded = [await _encode(one, codec, name) for one in inputs]
    if not all(encoded):
        raise invalid("an input is empty", name)
    return encoded


async def encode_text(text: str, codec: Codec) -> list[int]:
    """Token ids of a text; a long one is encoded beside the loop."""
    if len(text) > LONG_TEXT:
        return await asyncio.to_thread(codec.encode, text)
    return codec.encode(text)


async def _encode(one: str | list[int], codec: Codec, name: str) -> list[int]:
    if isinstance(one, str):
        if not one:
            return []  # a model's own frame around a text is no text
        return await encode_text(one, codec)
    top = codec.vocab_size or _MAX_ID + 1
    if any(token < 0 or token >= top for token in one):
        raise invalid("a token id is not one of the model's", name)
    return one


def _split(given: str | list[Any], name: str) -> Sequence[str | list[int]]:
    if isinstance(given, str):
        return [given]
    if _are_ids(given):
        return [given]
    if all(isinstance(one, str) for one in given) or all(_are_ids(one) for one in given):
        return given
    raise invalid("a text, a list of token ids, or a list of either is expected", name)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int for one in value)
