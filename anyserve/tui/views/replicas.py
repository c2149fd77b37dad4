"""The replicas: state, load, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from anyserve.telemetry.filters import Row
from anyserve.telemetry.views import ReplicaView
from anyserve.tui.frame import Frame
from anyserve.tui.numbers import ms, percent, rate
from anyserve.tui.spans import EMPTY, Line, Span, fit, line
from anyserve.tui.views.look import Look, natural, number_cell, state_cell
from anyserve.tui.widgets.charts import meter, resample, spark
from anyserve.tui.widgets.columns import Column, widest

SPARK_S = 60
_NS_PER_S = 1_000_000_000
_PERCENT_WIDTH = 5
_SLOW_TTFT_MS = 1000

SORTABLE = ("id", "state", "wait", "run", "kv", "toks", "ttft", "done", "in", "out", "lost")
RISING = frozenset({"id", "state"})
"""Columns whose smallest value stands on top at first."""

FIELDS = frozenset(
    {"id", "state", "cap", "wait", "run", "slots", "kv", "toks", "ttft", "done", "in", "out",
     "lost", "engine", "failed"}
)  # fmt: skip


def row_of(replica: ReplicaView) -> Row:
    """The fields that a filter may name."""
    return {
        "id": replica.id,
        "state": replica.state,
        "cap": tuple(replica.offers),
        "wait": replica.waiting,
        "run": replica.running,
        "slots": replica.concurrency,
        "kv": replica.kv_usage,
        "toks": replica.tokens_per_s,
        "ttft": replica.ttft_p95_ms,
        "done": replica.completed,
        "failed": replica.failed,
        "in": replica.delegated_in,
        "out": replica.delegated_out,
        "lost": replica.lost,
        "engine": replica.engine,
    }


SORTS: Mapping[str, Callable[[ReplicaView], float | str]] = {
    "id": lambda one: one.id,
    "state": lambda one: one.state,
    "wait": lambda one: _known(one.waiting),
    "run": lambda one: _known(one.running),
    "kv": lambda one: _known(one.kv_usage),
    "toks": lambda one: _known(one.tokens_per_s),
    "ttft": lambda one: _known(one.ttft_p95_ms),
    "done": lambda one: one.completed,
    "in": lambda one: one.delegated_in,
    "out": lambda one: one.delegated_out,
    "lost": lambda one: one.lost,
}
"""Unknown sorts below everything known."""


def columns(replicas: Sequence[ReplicaView], look: Look) -> tuple[Column, ...]:
    """As wide as names and offers need; what is left goes to the load of the last minute."""
    ascii_only = look.glyphs.ascii
    arrow = "" if ascii_only else f" {look.glyphs.hop}"
    short = "busy, 60 s" if ascii_only else "busy · 60 s"
    busy = f"{short}, full = all slots" if ascii_only else f"{short} · full = all slots"
    names = widest((one.id for one in replicas), 8, 20)
    offers = widest((" ".join(one.offers) for one in replicas), 12, 30)
    slots = max((len(str(one.concurrency)) for one in replicas), default=1)
    return (
        Column("id", "replica", names, priority=100),
        Column("state", "state", 13, priority=99),
        Column("cap", "capabilities", offers, priority=80),
        Column("spark", busy, 12, priority=72, flex=True, most=90, short=short),
        Column("wait", "wait", 5, "right", priority=98),
        Column("run", "run", max(5, 2 * slots + 1), "right", priority=97),
        Column("kv", "kv cache", 12, priority=50, flex=True, most=16),
        Column("toks", "tok/s", 6, "right", priority=75),
        Column("ttft", "ttft p95", 8, "right", priority=85),
        Column("done", "done", 5, "right", priority=40),
        Column("in", f"in{arrow}", 5, "right", priority=70),
        Column("out", f"out{arrow}", 5, "right", priority=71),
        Column("lost", "lost", 5, "right", priority=30),
    )


def cells(
    replica: ReplicaView, widths: Mapping[str, int], frame: Frame, look: Look
) -> dict[str, Line]:
    """A row; what the screen has no room for is not worked out."""
    known = replica.running is not None
    over = bool(replica.waiting)
    full = bool(replica.concurrency) and (replica.running or 0) >= replica.concurrency
    row = {
        "id": line((look.glyphs.text(replica.id), "bold")),
        "state": state_cell(frame, replica.state, replica.progress, replica.changed_ns, look),
        "cap": _capabilities(sorted(replica.offers), look),
        "wait": _number(replica.waiting, look, "bad" if over else ""),
        "run": _running(replica, look, full=full),
        "toks": line(rate(replica.tokens_per_s)) if known else _unknown(look),
        "ttft": _ttft(replica.ttft_p95_ms, look),
        "done": number_cell(replica.completed, look),
        "in": number_cell(replica.delegated_in, look, "hop"),
        "out": number_cell(replica.delegated_out, look, "hop"),
        "lost": number_cell(replica.lost, look, "bad"),
    }
    if "spark" in widths:
        row["spark"] = busy_spark(replica, frame, widths["spark"], look)
    if "kv" in widths:
        row["kv"] = _kv(replica.kv_usage, widths["kv"], look)
    return row


def busy_spark(replica: ReplicaView, frame: Frame, width: int, look: Look) -> Line:
    """Running and waiting over the last minute; full is all slots, more than full waits."""
    now = frame.snapshot.now_ns
    points = [(point.at_ns, point.running + point.waiting) for point in replica.history]
    values = resample(points, now - SPARK_S * _NS_PER_S, now, width)
    return spark(values, max(1, replica.concurrency), look.glyphs)


def sort_replicas(
    replicas: Sequence[ReplicaView], column: str, *, reverse: bool
) -> list[ReplicaView]:
    """Rows in the order of a column; equal ones by name."""
    by_name = sorted(replicas, key=lambda one: natural(one.id))
    if column == "id":
        return by_name[::-1] if reverse else by_name
    return sorted(by_name, key=SORTS[column], reverse=reverse)


def _known(value: float | None) -> float:
    return -1.0 if value is None else value


def _unknown(look: Look) -> Line:
    return line((look.glyphs.unknown, "faint"))


def _number(value: int | None, look: Look, role: str) -> Line:
    if value is None:
        return _unknown(look)
    return line((str(value), role if value else "dim"))


def _running(replica: ReplicaView, look: Look, *, full: bool) -> Line:
    if replica.running is None:
        return line((f"{look.glyphs.unknown}/{replica.concurrency}", "faint"))
    role = "warn" if full else "" if replica.running else "dim"
    return line((str(replica.running), role), (f"/{replica.concurrency}", "dim"))


def _ttft(value: float | None, look: Look) -> Line:
    if value is None:
        return _unknown(look)
    return line((ms(value), "warn" if value >= _SLOW_TTFT_MS else ""))


def _kv(value: float | None, width: int, look: Look) -> Line:
    text = look.glyphs.unknown if value is None else percent(value)
    role = "faint" if value is None else ""
    bar = meter(value, max(1, width - _PERCENT_WIDTH), look.glyphs)
    return (*bar, *fit((Span(text, role),), _PERCENT_WIDTH, "right"))


def _capabilities(names: Sequence[str], look: Look) -> Line:
    spans: list[Span] = []
    for name in names:
        if spans:
            spans.append(Span(" "))
        spans.append(look.capability(name))
    return tuple(spans) or EMPTY
