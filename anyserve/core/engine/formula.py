"""The formula of a step's time, ready to be asked: see `step_time.py`, which says what it means."""

from __future__ import annotations

from bisect import bisect_left


class Formula:
    """The coefficients of a `StepTimeModel`, where they are quickly read."""

    __slots__ = (
        "attention_ps", "base_ps", "context_ps", "decode_ps", "floor_ps", "graph_sizes",
        "prefill_ps", "prompt_ps", "table",
    )  # fmt: skip

    def __init__(
        self,
        *,
        base_ps: int,
        prefill_ps: int,
        decode_ps: int,
        context_ps: int,
        attention_ps: int,
        prompt_ps: int,
        floor_ps: int,
        table: tuple[tuple[int, int], ...],
        graph_sizes: tuple[int, ...],
    ) -> None:
        self.base_ps = base_ps
        self.prefill_ps = prefill_ps
        self.decode_ps = decode_ps
        self.context_ps = context_ps
        self.attention_ps = attention_ps
        self.prompt_ps = prompt_ps
        self.floor_ps = floor_ps
        self.table = table
        self.graph_sizes = graph_sizes

    def fixed_ps(self, prefill_tokens: int, prefills: int, decodes: int) -> int:
        """The part that does not depend on how long the contexts are."""
        padded = decodes
        if self.graph_sizes and not prefill_tokens:
            place = bisect_left(self.graph_sizes, decodes)
            if place < len(self.graph_sizes):
                padded = self.graph_sizes[place]
        compute = self.prefill_ps * prefill_tokens + self.decode_ps * padded
        compute = max(compute, self.floor_ps)
        if self.table:
            compute += interpolate(self.table, prefill_tokens + decodes)
        return self.base_ps + compute + self.prompt_ps * prefills


def interpolate(table: tuple[tuple[int, int], ...], at: int) -> int:
    """The height of a table of (place, height), ascending: linear between its points and beyond its
    last two; never below zero."""
    if len(table) == 1:
        return table[0][1]
    place = min(max(1, bisect_left(table, (at, 0))), len(table) - 1)
    (left, low), (right, high) = table[place - 1], table[place]
    return max(0, low + (high - low) * (at - left) // (right - left))
