"""The events that are worth a line, newest last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from anyserve.telemetry.filters import Row
from anyserve.telemetry.views import Level, NoticeView
from anyserve.tui.frame import Frame
from anyserve.tui.numbers import clock
from anyserve.tui.spans import Line, line
from anyserve.tui.views.look import Look, level_role, natural
from anyserve.tui.widgets.columns import Column

COLUMNS: tuple[Column, ...] = (
    Column("time", "time", 6, "right", priority=60),
    Column("level", "level", 5, priority=90),
    Column("text", "what", 20, priority=100, flex=True),
)
FIELDS = frozenset({"level", "source", "text", "kind"})
ELSEWHERE = frozenset({"request.delegated", "epoch.changed", "worker.changed"})
"""Told by the ledger, said by every process at once, and seen in the states of replicas. A worker
that dies or hangs is told all the same."""
TOGETHER_NS = 60_000_000_000
"""Replicas that come to the same state within this time share a line."""


def row_of(notice: NoticeView) -> Row:
    """The fields that a filter may name."""
    return {
        "level": notice.level.value,
        "source": notice.source,
        "text": notice.text,
        "kind": notice.kind,
    }


def chosen(
    notices: Sequence[NoticeView], *, errors_only: bool, everything: bool = False
) -> list[NoticeView]:
    """What the panel lists, newest first: not what is told elsewhere, and replicas that do the same
    at the same time on one line. `everything`: each by itself."""
    listed = [
        notice
        for notice in notices
        if not (errors_only and notice.level is Level.INFO)
        and (everything or notice.kind not in ELSEWHERE or notice.level is not Level.INFO)
    ]
    return (listed if everything else _together(listed))[::-1]


def _together(notices: Sequence[NoticeView]) -> list[NoticeView]:
    """A line for each state that replicas come to, until anything else happens."""
    lines: list[list[NoticeView]] = []
    open_lines: dict[str, list[NoticeView]] = {}
    for notice in notices:
        if not notice.subject or notice.level is not Level.INFO:
            open_lines.clear()
            lines.append([notice])
            continue
        does = notice.text.removeprefix(notice.subject)
        members = open_lines.get(does)
        if members is None or notice.at_ns - members[0].at_ns > TOGETHER_NS:
            members = open_lines[does] = []
            lines.append(members)
        members.append(notice)
    return sorted((_one_line(members) for members in lines), key=lambda one: one.at_ns)


def _one_line(members: Sequence[NoticeView]) -> NoticeView:
    last = members[-1]
    names = {one.subject for one in members}
    if len(names) == 1:
        return last
    does = last.text.removeprefix(last.subject).replace(" is ", " are ", 1)
    return replace(
        last, text=f"{len(names)} replicas{does}: {' '.join(sorted(names, key=natural))}"
    )


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
