"""How many tokens an answer has, by choice."""

from __future__ import annotations


class TokenCounts:
    """Tokens of each choice of a request. Nearly all requests have one choice: a number is enough
    for that."""

    __slots__ = ("_first", "_others")

    def __init__(self) -> None:
        self._first = 0
        self._others: list[int] | None = None
        """Those of choices 1, 2, ..., as soon as one of them has any."""

    def count(self, choice: int, tokens: int) -> None:
        """A choice has so many more."""
        if choice == 0:
            self._first += tokens
            return
        others = self._others
        if others is None:
            others = self._others = []
        while len(others) < choice:
            others.append(0)
        others[choice - 1] += tokens

    def n_tokens(self, choice: int | None = None) -> int:
        """Those of one choice, or of all."""
        others = self._others
        if choice is None:
            return self._first if others is None else self._first + sum(others)
        if choice == 0:
            return self._first
        return 0 if others is None or choice > len(others) else others[choice - 1]

    def by_choice(self) -> list[int]:
        """Those of choices 0, 1, ... up to the last one that has any."""
        return [self._first, *(self._others or ())]
