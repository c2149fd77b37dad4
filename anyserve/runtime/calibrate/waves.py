"""What an engine is measured with: waves of requests that make steps of every kind.

A wave is a set of requests and the steps before which they come. Some are designed (one batch size,
one chunk size, one long context at a time), so that the terms of the formula can be told apart; the
others are random, and every second one of those is held out: its steps judge the fit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from anyserve.runtime.engines.base import EngineInfo

_LEVELS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
_SHORT: Final = 8
_STEPS: Final = 10
_RESTS_MS: Final = (100, 300, 1000)
_TIMES: Final = 2


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a wave."""

    before_step: int
    prompt: int
    output: int
    """0: an embedding."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Requests that are measured together."""

    name: str
    asks: tuple[Ask, ...]
    held_out: bool = False
    rest_ms: int = 0
    """The engine stands idle for so long before it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of the engine that is measured."""

    seqs: int
    tokens: int
    context: int
    kv_tokens: int
    embeds: bool

    @classmethod
    def of(cls, info: EngineInfo, *, embeds: bool) -> Bounds:
        """As the engine reports them."""
        tokens = info.max_num_batched_tokens
        kv_tokens = info.kv_tokens or info.max_model_len * info.max_num_seqs
        return cls(info.max_num_seqs, tokens, info.max_model_len, kv_tokens, embeds)


def designed(bounds: Bounds) -> list[Wave]:
    """The waves that tell the terms apart."""
    if bounds.embeds:
        return [_texts(bounds, length, count) for length, count in _text_sizes(bounds)]
    waves = [_decodes(level) for level in _LEVELS if level <= bounds.seqs]
    waves += [_prompt(size) for size in _powers(2, min(bounds.tokens, bounds.context - 4))]
    waves += _long_contexts(bounds)
    waves += _mixed(bounds)
    return waves


def rested(bounds: Bounds, longest_ms: int = 1000) -> list[Wave]:
    """Single requests that find the engine idle, for so long at most or the shortest time of all;
    their first steps are not for the fit."""
    longest = min(bounds.tokens, bounds.context - 4, 8 * _SHORT * 2)
    output = 0 if bounds.embeds else 2
    return [
        Wave(f"{size} after {rest_ms} ms", (Ask(0, size, output),), rest_ms=rest_ms)
        for _ in range(_TIMES)
        for rest_ms in _RESTS_MS
        if rest_ms <= max(longest_ms, _RESTS_MS[0])
        for size in _powers(2 * _SHORT, longest)
    ]


def random_waves(bounds: Bounds, seed: int) -> Iterator[Wave]:
    """Without end; every second one is held out."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    for number in range(1 << 30):
        make = _random_texts if bounds.embeds else _random_requests
        yield Wave(f"random {number}", make(bounds, rng), held_out=number % 2 == 1)


def _decodes(level: int) -> Wave:
    """So many sequences with next to no context."""
    return Wave(f"{level} decodes", tuple(Ask(0, _SHORT, _STEPS) for _ in range(level)))


def _prompt(size: int) -> Wave:
    """One chunk of so many tokens, the same again, and an odd one."""
    again = tuple(Ask(before, size, 2) for before in (0, 2, 4))
    return Wave(f"prompt {size}", (*again, Ask(6, max(1, size - size // 3), 2)))


def _long_contexts(bounds: Bounds) -> list[Wave]:
    """A prompt of many chunks, then decodes that read it; then several such."""
    longest = min(bounds.context - 2 * _STEPS, bounds.kv_tokens - 2 * _STEPS, 8 * bounds.tokens)
    waves = [Wave("longest", (Ask(0, longest, _STEPS),))]
    for count in (2, 4, 8):
        length = min(longest, longest * 2 // count, bounds.kv_tokens // (count + 1))
        if count <= bounds.seqs and length > 4 * _SHORT:
            asks = tuple(Ask(0, length, _STEPS) for _ in range(count))
            waves.append(Wave(f"{count} of {length}", asks))
    return waves


def _mixed(bounds: Bounds) -> list[Wave]:
    """Prompts that join others' decodes: each size twice, and one of several chunks."""
    tokens = bounds.tokens
    longest = max(1, min(bounds.context, bounds.kv_tokens // 2) - 4)
    sizes = [size for part in (8, 4, 2, 1) for size in 2 * [max(1, tokens // part)]]
    waves = []
    for level in (2, bounds.seqs // 2, bounds.seqs - 1):
        if level < 1:
            continue
        decodes = tuple(Ask(0, 2 * _SHORT, 4 * _STEPS) for _ in range(level))
        prompts = tuple(
            Ask(4 + 3 * place, min(size, longest), 2)
            for place, size in enumerate([*sizes, 3 * tokens])
        )
        waves.append(Wave(f"prompts beside {level}", decodes + prompts))
    return waves


def _random_requests(bounds: Bounds, rng: random.Random) -> tuple[Ask, ...]:
    count = rng.randint(1, min(bounds.seqs + 2, 24))
    room = min(bounds.context - 40, bounds.kv_tokens // (count + 1) - 40)
    longest = max(_SHORT, min(room, 4 * bounds.tokens, rng.choice([64, 256, 1024])))
    asks = []
    total = 0
    for _ in range(count):
        prompt = round(_SHORT * (longest / _SHORT) ** rng.random())
        total += prompt
        if total > 8 * bounds.tokens:
            break
        asks.append(Ask(rng.randint(0, 16), prompt, rng.randint(4, 24)))
    return tuple(asks)


def _text_sizes(bounds: Bounds) -> list[tuple[int, int]]:
    longest = min(bounds.context, bounds.tokens)
    return [
        (length, count)
        for length in _powers(4, longest)
        for count in (1, 2, 4, 8, 16)
        if count <= bounds.seqs and length * count <= bounds.tokens
    ]


def _texts(bounds: Bounds, length: int, count: int) -> Wave:
    del bounds
    return Wave(f"{count} texts of {length}", tuple(Ask(0, length, 0) for _ in range(count)))


def _random_texts(bounds: Bounds, rng: random.Random) -> tuple[Ask, ...]:
    longest = min(bounds.context, bounds.tokens)
    count = rng.randint(1, 2 * bounds.seqs)
    return tuple(Ask(0, round(4 * (longest / 4) ** rng.random()), 0) for _ in range(count))


def _powers(low: int, high: int) -> list[int]:
    sizes = []
    while low < high:
        sizes.append(low)
        low *= 2
    return [*sizes, high]
