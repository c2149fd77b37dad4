"""The ledger: every way back to the scheduler, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyserve.telemetry.filters import Row
from anyserve.telemetry.views import LedgerEntry
from anyserve.tui.frame import Frame
from anyserve.tui.numbers import clock_ms, ms, short_id
from anyserve.tui.spans import Line, Span, line
from anyserve.tui.views.look import Look, outcome_cell
from anyserve.tui.widgets.columns import Column, widest

FIELDS = frozenset({"request", "cap", "from", "to", "why", "kind", "outcome", "hop", "e2e"})
_SLOW_HOP_MS = 100
_LOOKED_AT = 100


def columns(entries: Sequence[LedgerEntry]) -> tuple[Column, ...]:
    """As wide as the names in sight need; what is left goes to the reason."""
    latest = entries[:_LOOKED_AT]
    paths = (f"{one.from_replica} > {one.to_replica or ''}" for one in latest)
    return (
        Column("time", "time", 9, priority=65),
        Column("request", "request", widest((short_id(one.request) for one in latest), 9, 24),
               priority=100),
        Column("cap", "asked", widest((one.from_capability or "" for one in latest), 8, 20),
               priority=70),
        Column("path", "path", widest(paths, 8, 26), priority=99),
        Column("why", "why", 12, priority=90, flex=True, most=44),
        Column("hop", "hop", 7, "right", priority=50),
        Column("end", "end", 9, priority=80),
    )  # fmt: skip


def key_of(entry: LedgerEntry) -> str:
    """What tells an entry from every other."""
    return f"{entry.request}@{entry.at_ns}"


def row_of(entry: LedgerEntry) -> Row:
    """The fields that a filter may name."""
    return {
        "request": entry.request,
        "cap": tuple(one for one in (entry.from_capability, entry.to_capability) if one),
        "from": entry.from_replica,
        "to": entry.to_replica,
        "why": (entry.reason, entry.detail),
        "kind": entry.kind,
        "outcome": entry.outcome or "running",
        "hop": entry.hop_ms,
        "e2e": entry.e2e_ms,
    }


def cells(
    entry: LedgerEntry, widths: Mapping[str, int], frame: Frame, look: Look
) -> dict[str, Line]:
    """A row."""
    del widths
    slow = entry.hop_ms is not None and entry.hop_ms >= _SLOW_HOP_MS
    return {
        "time": line((clock_ms(frame.seconds(entry.at_ns)), "dim")),
        "request": line((look.glyphs.text(short_id(entry.request)), "bold")),
        "cap": (look.capability(entry.from_capability or look.glyphs.unknown),),
        "path": _path(entry, look),
        "why": _why(entry, look),
        "hop": line((ms(entry.hop_ms), "bad" if slow else "" if entry.hop_ms else "dim")),
        "end": outcome_cell(entry.outcome, None, ms(entry.e2e_ms), look),
    }


def _path(entry: LedgerEntry, look: Look) -> Line:
    glyphs = look.glyphs
    lost = entry.kind == "lost"
    arrow = glyphs.lost_arrow if lost else glyphs.arrow
    target = entry.to_replica or (glyphs.nowhere if entry.outcome else glyphs.pending)
    return line(
        glyphs.text(entry.from_replica),
        (f" {arrow} ", "bad" if lost else "hop"),
        (glyphs.text(target), "" if entry.to_replica else "warn"),
    )


def _why(entry: LedgerEntry, look: Look) -> Line:
    words = look.glyphs.text(entry.reason.replace("_", " "))
    spans: list[Span] = [Span(words, "bad" if entry.kind == "lost" else "")]
    if entry.kind not in {"delegate", entry.reason}:
        spans.append(Span(f" ({entry.kind})", "dim"))
    upgraded = entry.to_capability not in {None, entry.from_capability}
    if upgraded and entry.to_capability is not None:
        spans += [Span(f" {look.glyphs.arrow} ", "hop"), look.capability(entry.to_capability)]
    return tuple(spans)
