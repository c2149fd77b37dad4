"""Names for the blocks of a prompt, so that equal beginnings are found in the prefix cache.

vLLM hashes each full block with the hash of the block before it, so a block's name stands for all
tokens up to its end. Here too; what is hashed is either the tokens, or, where a plan says which
texts a prompt is made of, the names of the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Segment = tuple[int, int]
"""(name of a text, number of its first tokens). The same name is the same text everywhere."""


class SegmentKeys:
    """Block keys of prompts that are made of named texts; remembers the latest ones."""

    def __init__(self, block_size: int, remember: int = 4096) -> None:
        self._size = block_size
        self._remember = remember
        self._known: dict[tuple[Segment, ...], tuple[int, ...]] = {}

    def of(self, segments: tuple[Segment, ...]) -> tuple[int, ...]:
        """Keys of the full blocks. Only pass what others may share: the key of a text that occurs
        once costs its time and finds nothing."""
        keys = self._known.get(segments)
        if keys is None:
            if len(self._known) >= self._remember:
                self._known.clear()
            keys = self._known[segments] = tuple(_segment_keys(segments, self._size))
        return keys


def token_keys(tokens: Sequence[int], block_size: int) -> tuple[int, ...]:
    """Block keys of known tokens."""
    keys = []
    key = 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        key = hash((key, *tokens[start : start + block_size]))
        keys.append(key)
    return tuple(keys)


def _segment_keys(segments: Iterable[Segment], size: int) -> Iterable[int]:
    key = 0
    pieces: list[int] = []
    missing = size
    for name, length in segments:
        offset = 0
        while length - offset >= missing:
            pieces += (name, offset, missing)
            offset += missing
            key = hash((key, *pieces))
            yield key
            pieces = []
            missing = size
        if offset < length:
            pieces += (name, offset, length - offset)
            missing -= length - offset
