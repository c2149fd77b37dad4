"""Requests: in flight and settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from anyserve.telemetry.filters import Row
from anyserve.telemetry.views import RequestView, Snapshot
from anyserve.tui.frame import Frame
from anyserve.tui.numbers import clock_ms, ms, short_id
from anyserve.tui.spans import Line, line
from anyserve.tui.views.look import Look, number_cell, outcome_cell
from anyserve.tui.widgets.columns import Column

COLUMNS: tuple[Column, ...] = (
    Column("time", "offered", 9, priority=60),
    Column("id", "request", 14, priority=100, flex=True, most=30),
    Column("asked", "asked", 12, priority=90, flex=True, most=22),
    Column("entry", "entered", 9, priority=55),
    Column("replica", "at", 8, priority=95, flex=True, most=16),
    Column("hops", "hops", 4, "right", priority=92),
    Column("in", "in", 5, "right", priority=50),
    Column("out", "out", 9, "right", priority=49),
    Column("ttft", "ttft", 8, "right", priority=85),
    Column("e2e", "total", 8, "right", priority=80),
    Column("end", "end", 16, priority=88, flex=True, most=26),
)
SORTABLE = tuple(column.key for column in COLUMNS)
RISING = frozenset({"id", "asked", "entry", "replica", "end"})
"""Columns whose smallest value stands on top at first."""

FIELDS = frozenset(
    {"id", "asked", "cap", "entry", "replica", "hops", "delegations", "recoveries", "in", "out",
     "ttft", "e2e", "stage", "outcome", "code", "time"}
)  # fmt: skip

HERE_COLUMNS: tuple[Column, ...] = (
    Column("id", "request", 12, priority=100, flex=True, most=24),
    Column("asked", "asked", 10, priority=90, flex=True, most=20),
    Column("stage", "stage", 9, priority=95),
    Column("since", "for", 8, "right", priority=85),
    Column("in", "in", 5, "right", priority=60),
    Column("max", "max out", 7, "right", priority=50),
    Column("hops", "hops", 4, "right", priority=70),
)

_ROW_SORTS: Mapping[str, Callable[[RequestView], float | str]] = {
    "id": lambda one: one.id,
    "asked": lambda one: one.asked or "",
    "entry": lambda one: one.entry or "",
    "replica": lambda one: one.replica or "",
    "hops": lambda one: one.delegations,
    "in": lambda one: one.prompt_tokens or 0,
    "out": lambda one: one.n_tokens,
    "ttft": lambda one: -1.0 if one.ttft_ms is None else one.ttft_ms,
    "e2e": lambda one: -1.0 if one.e2e_ms is None else one.e2e_ms,
    "end": lambda one: one.outcome or one.stage.value,
    "time": lambda one: one.offered_ns or 0,
}


def all_requests(snapshot: Snapshot) -> list[RequestView]:
    """In flight and settled, newest first."""
    known = [*snapshot.recent, *snapshot.requests]
    return sorted(known, key=lambda one: one.offered_ns or 0, reverse=True)


def sort_requests(rows: Sequence[RequestView], column: str, *, reverse: bool) -> list[RequestView]:
    """Rows in the order of a column; equal ones newest first."""
    return sorted(rows, key=_ROW_SORTS[column], reverse=reverse)


def row_of(one: RequestView, frame: Frame) -> Row:
    """The fields that a filter may name."""
    return {
        "id": (one.id, short_id(one.id)),
        "asked": one.asked,
        "cap": tuple(name for name in (one.asked, one.capability) if name),
        "entry": one.entry,
        "replica": one.replica,
        "hops": 1 + one.delegations,
        "delegations": one.delegations,
        "recoveries": one.recoveries,
        "in": one.prompt_tokens,
        "out": None if one.outcome is None else one.n_tokens,
        "ttft": one.ttft_ms,
        "e2e": one.e2e_ms,
        "stage": one.stage.value,
        "outcome": one.outcome or "running",
        "code": one.code,
        "time": None if one.offered_ns is None else frame.seconds(one.offered_ns) * 1000,
    }


def cells(one: RequestView, widths: Mapping[str, int], frame: Frame, look: Look) -> dict[str, Line]:
    """A row of the list of requests."""
    del widths
    glyphs = look.glyphs
    offered = glyphs.unknown
    if one.offered_ns is not None:
        offered = clock_ms(frame.seconds(one.offered_ns))
    end = outcome_cell(one.outcome, one.code, one.outcome or "", look)
    if one.outcome is None:
        end = line((f"{glyphs.pending} {one.stage.value}", "info"))
    return {
        "time": line((offered, "dim")),
        "id": line((glyphs.text(short_id(one.id)), "bold")),
        "asked": (look.capability(one.asked or glyphs.unknown),),
        "entry": line((glyphs.text(one.entry or glyphs.unknown), "dim")),
        "replica": line(glyphs.text(one.replica or glyphs.unknown)),
        "hops": _hops(one, look),
        "in": number_cell(one.prompt_tokens or 0, look),
        "out": _out(one, look),
        "ttft": line((ms(one.ttft_ms), "dim" if one.ttft_ms is None else "")),
        "e2e": line((ms(one.e2e_ms), "dim" if one.e2e_ms is None else "")),
        "end": end,
    }


def _out(one: RequestView, look: Look) -> Line:
    """How many tokens came; events tell it with the outcome, and until then nobody knows."""
    came = (look.glyphs.unknown, "faint") if one.outcome is None else (str(one.n_tokens), "")
    return line(came, (f"/{one.max_tokens or 0}", "dim"))


def here_cells(
    one: RequestView, widths: Mapping[str, int], frame: Frame, look: Look
) -> dict[str, Line]:
    """A row of the requests at one replica."""
    del widths
    since = None
    if one.stage_ns is not None:
        since = max(0, frame.snapshot.now_ns - one.stage_ns) / 1e6
    place = f" {one.position}" if one.position and one.stage.value in {"queued", "bound"} else ""
    return {
        "id": line((look.glyphs.text(short_id(one.id)), "bold")),
        "asked": (look.capability(one.asked or look.glyphs.unknown),),
        "stage": line((f"{one.stage.value}{place}", _STAGE_ROLES.get(one.stage.value, "dim"))),
        "since": line((ms(since), "")),
        "in": number_cell(one.prompt_tokens or 0, look),
        "max": number_cell(one.max_tokens or 0, look),
        "hops": _hops(one, look),
    }


_STAGE_ROLES = {"queued": "wait", "bound": "wait", "running": "prefill", "streaming": "decode"}


def _hops(one: RequestView, look: Look) -> Line:
    if one.recoveries:
        return line((f"{1 + one.delegations}+{one.recoveries}", "bad"))
    if one.delegations:
        return line((f"{1 + one.delegations}", "hop"))
    return line(("1", "faint")) if one.attempt else line((look.glyphs.zero, "faint"))
