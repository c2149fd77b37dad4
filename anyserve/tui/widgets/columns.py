"""How wide the columns of a grid are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anyserve.tui.spans import cells_of

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """`width` cells at least. Where the screen is too narrow the lowest `priority` goes first;
    what is left over goes to `flex` columns, up to `most`. `short` is the title where there is no
    room for `title`."""

    key: str
    title: str
    width: int
    align: str = "left"
    priority: int = 50
    flex: bool = False
    most: int = 1000
    short: str = ""


def widest(texts: Iterable[str], least: int, most: int) -> int:
    """A width that every text fits into, between these bounds."""
    return min(max([least, *(cells_of(text) for text in texts)]), most)


def fit_columns(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """The columns that fit into `width` cells, with their widths, in their order.

    Together with the gaps they never take more than `width`; the column of the highest priority
    stays even where it must be cut.
    """
    kept = list(columns)
    while len(kept) > 1 and _needed(kept) > width:
        kept.remove(min(reversed(kept), key=lambda column: column.priority))
    widths = {column.key: min(column.width, max(0, width)) for column in kept}
    slack = width - _needed(kept)
    flexible = [column for column in kept if column.flex]
    while slack > 0 and flexible:
        share = max(1, slack // len(flexible))
        for column in list(flexible):
            more = min(share, slack, column.most - widths[column.key])
            widths[column.key] += max(0, more)
            slack -= max(0, more)
            if more <= 0:
                flexible.remove(column)
    return [(column, widths[column.key]) for column in kept]


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * max(0, len(columns) - 1)
