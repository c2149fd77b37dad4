"""The events that are worth a line, newest last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyserve.telemetry.filters import Row
from anyserve.telemetry.views import Level, NoticeView
from anyserve.tui.frame import Frame
from anyserve.tui.numbers import clock
from anyserve.tui.spans import Line, line
from anyserve.tui.views.look import Look, level_role
from anyserve.tui.widgets.columns import Column

COLUMNS: tuple[Column, ...] = (
    Column("time", "time", 6, "right", priority=60),
    Column("level", "level", 5, priority=90),
    Column("text", "what", 20, priority=100, flex=True),
)
FIELDS = frozenset({"level", "source", "text", "kind"})
ELSEWHERE = frozenset({"request.delegated", "epoch.changed"})
"""Told by the ledger, and said by every process at once."""


def row_of(notice: NoticeView) -> Row:
    """The fields that a filter may name."""
    return {
        "level": notice.level.value,
        "source": notice.source,
        "text": notice.text,
        "kind": notice.kind,
    }


def chosen(notices: Sequence[NoticeView], *, errors_only: bool) -> list[tuple[int, NoticeView]]:
    """What the panel lists, each with its number among all, newest first."""
    return [
        (number, notice)
        for number, notice in reversed(list(enumerate(notices)))
        if notice.kind not in ELSEWHERE and not (errors_only and notice.level is Level.INFO)
    ]


def cells(
    notice: NoticeView, widths: Mapping[str, int], frame: Frame, look: Look
) -> dict[str, Line]:
    """A row."""
    del widths
    role = level_role(notice.level)
    return {
        "time": line((clock(frame.seconds(notice.at_ns)), "dim")),
        "level": line((notice.level.value, role)),
        "text": line((look.glyphs.text(notice.text), "" if notice.level is Level.INFO else role)),
    }
