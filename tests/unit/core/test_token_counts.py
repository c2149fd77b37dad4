"""Tokens by choice: a number for the first, a list for others."""

from __future__ import annotations

from anyserve.core.token_counts import TokenCounts


def test_nothing_is_counted_at_first() -> None:
    counts = TokenCounts()

    assert (counts.n_tokens(), counts.n_tokens(0), counts.n_tokens(3)) == (0, 0, 0)
    assert counts.by_choice() == [0]


def test_tokens_of_one_choice_add_up() -> None:
    counts = TokenCounts()
    counts.count(0, 2)
    counts.count(0, 3)

    assert (counts.n_tokens(), counts.n_tokens(0), counts.n_tokens(1)) == (5, 5, 0)
    assert counts.by_choice() == [5]


def test_each_choice_has_its_own_in_whatever_order_they_come() -> None:
    counts = TokenCounts()
    counts.count(2, 7)
    counts.count(0, 1)
    counts.count(2, 1)

    assert [counts.n_tokens(choice) for choice in range(4)] == [1, 0, 8, 0]
    assert counts.n_tokens() == 9
    assert counts.by_choice() == [1, 0, 8]
