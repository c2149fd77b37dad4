"""Tokens and vectors that depend on the prompt only, for engines without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EMBEDDING_SIZE = 384


def echoed(prompt_ids: Sequence[int], first: int, count: int, choice: int = 0) -> list[int]:
    """Tokens `first` .. of the prompt said over and over; choices start at different places."""
    size = len(prompt_ids)
    return [prompt_ids[(choice + first + place) % size] for place in range(count)]


def bag_vector(prompt_ids: Sequence[int]) -> list[float]:
    """A unit vector: prompts that share tokens are near each other."""
    total = np.zeros(EMBEDDING_SIZE)
    for token in prompt_ids:
        total += np.random.default_rng(token).standard_normal(EMBEDDING_SIZE)
    vector: list[float] = (total / np.linalg.norm(total)).tolist()
    return vector
