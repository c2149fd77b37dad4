"""Tokens by choice: a number for the first, a list for others."""

from __future__ import annotations

import pytest

from anyserve.core.token_counts import TokenCounts


@pytest.mark.parametrize(
    ("said", "by_choice"),
    [
        ([], [0]),
        ([(0, 2), (0, 3)], [5]),
        ([(2, 7), (0, 1), (2, 1)], [1, 0, 8]),
    ],
    ids=["nothing", "one choice", "three choices"],
)
def test_tokens_of_each_choice_add_up(said: list[tuple[int, int]], by_choice: list[int]) -> None:
    counts = TokenCounts()
    for choice, tokens in said:
        counts.count(choice, tokens)

    assert counts.by_choice() == by_choice
    assert counts.n_tokens() == sum(by_choice)
    assert [counts.n_tokens(choice) for choice in range(4)] == (by_choice + 4 * [0])[:4]
