"""A log: its lines broken to the width of the screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anyserve.telemetry.filters import Row
from anyserve.tui.logfile import LogLine, level_of
from anyserve.tui.spans import Line, line
from anyserve.tui.views.look import Look
from anyserve.tui.widgets.columns import Column

FIELDS = frozenset({"text", "level"})
_ROLES = {"error": "bad", "warn": "warn", "info": ""}
_INDENT, _NEAR = 4, 24


@dataclass(frozen=True, slots=True)
class LogRow:
    """A piece of a line; `part` counts from 0."""

    line: LogLine
    part: int
    text: str
    level: str


def columns(title: str) -> tuple[Column, ...]:
    """One, as wide as there is room; its title says which file it is."""
    return (Column("text", title, 20, flex=True, most=100_000),)


def row_of(one: LogLine) -> Row:
    """The fields that a filter may name."""
    return {"text": one.text, "level": level_of(one.text)}


def key_of(row: LogRow) -> str:
    """What tells a piece from every other."""
    return f"{row.line.number}/{row.part}"


def rows(lines: Iterable[LogLine], width: int, look: Look) -> list[LogRow]:
    """The lines in pieces of at most `width` cells; all but the first are indented."""
    found = []
    for one in lines:
        text, level = look.glyphs.text(one.text), level_of(one.text)
        for part, piece in enumerate(_pieces(text, width)):
            found.append(LogRow(one, part, piece, level))
    return found


def _pieces(text: str, width: int) -> list[str]:
    """Broken behind a blank where one is near; counted in characters, the grid cuts wide ones."""
    pieces = []
    indent = ""
    while len(text) > (room := max(1, width - len(indent))):
        blank = text.rfind(" ", room - _NEAR, room) + 1 if room > _NEAR else 0
        pieces.append(indent + text[: blank or room])
        text, indent = text[blank or room :], " " * _INDENT
    return [*pieces, indent + text]


def cells(row: LogRow, widths: Mapping[str, int]) -> dict[str, Line]:
    """A row."""
    del widths
    return {"text": line((row.text, _ROLES[row.level]))}
