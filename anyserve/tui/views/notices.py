"""The events that are worth a line, newest last."""

from __future__ import annotations

import re
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
_REQUEST = re.compile(r"\b([\w.-]+)/\d+/(\d+)\b")
TOGETHER_NS = 60_000_000_000
"""Replicas that come to the same state, and requests to which the same happens, share a line within
this time."""
_REPLICA = "replica.changed"


def _short(text: str) -> str:
    """Requests as all other panels name them: without the life of their origin."""
    return _REQUEST.sub(r"\1/\2", text)


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
    """What the panel lists, newest first: not what is told elsewhere, and what happens to many at
    the same time on one line. `everything`: each by itself."""
    listed = [
        notice
        for notice in notices
        if not (errors_only and notice.level is Level.INFO)
        and (everything or notice.kind not in ELSEWHERE or notice.level is not Level.INFO)
    ]
    return (listed if everything else _together(listed))[::-1]


def _together(notices: Sequence[NoticeView]) -> list[NoticeView]:
    """A line for all to which the same happens, until anything else does. To whom it happens again
    begins another line; a replica that is lost has its own."""
    lines: list[dict[str, NoticeView]] = []
    open_lines: dict[str, dict[str, NoticeView]] = {}
    for notice in notices:
        if not notice.subject or (notice.kind == _REPLICA and notice.level is Level.ERROR):
            open_lines.clear()
            lines.append({notice.subject: notice})
            continue
        does = notice.text.removeprefix(notice.subject)
        members = open_lines.get(does)
        if members is None or notice.subject in members or _is_late(notice, members):
            members = open_lines[does] = {}
            lines.append(members)
        members[notice.subject] = notice
    return sorted((_one_line(members) for members in lines), key=lambda one: one.at_ns)


def _is_late(notice: NoticeView, members: Mapping[str, NoticeView]) -> bool:
    first = next(iter(members.values()))
    return notice.at_ns - first.at_ns > TOGETHER_NS


def _one_line(members: Mapping[str, NoticeView]) -> NoticeView:
    last = list(members.values())[-1]
    if len(members) == 1:
        return last
    does = last.text.removeprefix(last.subject).replace(" is ", " are ", 1)
    names = " ".join(sorted(members, key=natural))
    what = "replicas" if last.kind == _REPLICA else "requests"
    return replace(last, text=f"{len(members)} {what}{does}: {names}")


def cells(
    notice: NoticeView, widths: Mapping[str, int], frame: Frame, look: Look
) -> dict[str, Line]:
    """A row."""
    del widths
    role, plain = level_role(notice.level), notice.level is Level.INFO
    return {
        "time": line((clock(frame.seconds(notice.at_ns)), "dim")),
        "level": line((notice.level.value, role)),
        "text": line((look.glyphs.text(_short(notice.text)), "" if plain else role)),
    }
