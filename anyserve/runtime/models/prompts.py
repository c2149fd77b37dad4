"""Prompts of an exact number of tokens, made of real sentences.

A plan says what a prompt is made of as segments: (hash, length). Equal hashes give equal tokens,
wherever they are used, so prompts share prefixes where the plan says so; different hashes differ
from their first tokens on. Ids are joined, not text: the count is exact by construction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from importlib import resources

from anyserve.runtime.models.tokenizers import TextTokenizer

Segment = tuple[int, int]
"""(hash, number of tokens)."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_NUMBERS = 10**9


class PromptMaker:
    """Makes prompts for one tokenizer."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._sentences = [
            tokenizer.encode(f" {sentence}", wrap=False) for sentence in load_sentences()
        ]

    def materialise(self, segments: Sequence[Segment], *, wrap: bool = True) -> list[int]:
        """Token ids of a prompt whose length is the sum of the segments' lengths.

        `wrap`: the first and last tokens are those the model wants around a text, inside the
        count; only models such as encoders want any.
        """
        ids = [token for number, length in segments for token in self.segment(number, length)]
        prefix, suffix = self._tokenizer.prefix_ids, self._tokenizer.suffix_ids
        if wrap and len(ids) > len(prefix) + len(suffix):
            ids[: len(prefix)] = prefix
            if suffix:
                ids[-len(suffix) :] = suffix
        return ids

    def segment(self, number: int, length: int) -> list[int]:
        """`length` token ids that depend on `number` only; a longer one begins with a shorter."""
        # A heading that names the segment keeps two segments from sharing a prefix by accident.
        ids = self._tokenizer.encode(f"{number % _NUMBERS:09d}.", wrap=False)
        draw = random.Random(number)  # noqa: S311 - text for a benchmark
        while len(ids) < length:
            ids += draw.choice(self._sentences)
        return ids[:length]


def load_sentences() -> list[str]:
    """The sentences of the text that ships with this package."""
    prose = resources.files("anyserve.runtime.models").joinpath("data", "prose.txt")
    text = " ".join(prose.read_text(encoding="utf-8").split())
    return _SENTENCE_END.split(text)
