"""One request: its waterfall, its conversation, and why it went where it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyserve.telemetry.conversation import Said
from anyserve.telemetry.text import format_ns
from anyserve.telemetry.trace_model import (
    HOPPING,
    RECOVERING,
    WAITING,
    Comeback,
    Decision,
    Segment,
    SegmentKind,
    Trace,
)
from anyserve.tui.numbers import short_id
from anyserve.tui.spans import EMPTY, Line, Span, clip, fit, line, width_of
from anyserve.tui.views.look import Look
from anyserve.tui.widgets.charts import bar_at
from anyserve.tui.widgets.columns import Column, widest

_HOP, _NAME, _WHERE_MOST, _GAP = 4, 16, 22, 2
_LEAST_BAR_SHARE = 0.4
_ROLES = {
    SegmentKind.PREFILL: "prefill",
    SegmentKind.DECODE: "decode",
    SegmentKind.LOST_WORK: "lost",
    SegmentKind.RECOVERY: "lost",
}
_WAYS_BACK = {
    "delegate": "delegated it",
    "refuse": "refused it",
    "return": "returned it",
    "lost": "was lost with it",
}


def title(trace: Trace, look: Look) -> str:
    """The request in one line."""
    hops = f"{trace.hops} hop" + ("" if trace.hops == 1 else "s")
    if trace.recoveries:
        hops += f", {trace.recoveries} recovered"
    outcome = trace.outcome or "running"
    parts = [
        f"request {short_id(trace.id)}",
        trace.asked,
        f"{trace.prompt_tokens} in / {trace.n_tokens} of {trace.max_tokens} out",
        hops,
        f"{outcome} {format_ns(trace.total_ns)}",
        *([trace.code] if trace.code else []),
    ]
    return look.glyphs.text(" · ".join(parts))


def role_of(kind: SegmentKind) -> str:
    """The role of a stretch of time: waiting, moving, or one of the engine's phases."""
    if kind in _ROLES:
        return _ROLES[kind]
    return "wait" if kind in WAITING else "transit"


def hop_numbers(trace: Trace) -> dict[int, int]:
    """Attempt -> which stay at a replica it was, from 1."""
    attempts: list[int] = []
    for segment in trace.segments:
        if segment.attempt is not None and segment.attempt not in attempts:
            attempts.append(segment.attempt)
    return {attempt: number for number, attempt in enumerate(attempts, start=1)}


def waterfall(trace: Trace, width: int, look: Look, *, until_ns: int | None = None) -> list[Line]:
    """Each stretch of time at its place. `until_ns`: only up to there, drawn as wide."""
    total = max(1, trace.total_ns if until_ns is None else until_ns)
    segments = [one for one in trace.segments if one.start_ns < total or one.start_ns == 0]
    hops = hop_numbers(trace)
    wheres = [look.glyphs.text(one.where).replace(" ", "") for one in segments]
    where_width = min(max((len(where) for where in wheres), default=0), _WHERE_MOST)
    label = _HOP + _NAME + where_width + _GAP
    remarks = [_remark(one, look) for one in segments]
    room = width - label
    longest = max((width_of(one) for one in remarks), default=0)
    bar_width = max(int(room * _LEAST_BAR_SHARE), room - 1 - longest)
    lines: list[Line] = [(Span(" " * label), *_axis(total, bar_width))]
    before: int | None = None
    for segment, where, remark in zip(segments, wheres, remarks, strict=True):
        first = segment.attempt is not None and segment.attempt != before
        before = segment.attempt if segment.attempt is not None else before
        hop = f" {hops[segment.attempt]}" if first and segment.attempt is not None else ""
        role = role_of(segment.kind)
        bar = bar_at(
            segment.start_ns / total, segment.duration_ns / total, bar_width, look.glyphs, role
        )
        lines.append(
            clip(
                (
                    *fit((Span(hop, "hop"),), _HOP),
                    *fit((Span(segment.name),), _NAME),
                    *fit((Span(where, "dim"),), where_width + _GAP, ellipsis=look.glyphs.ellipsis),
                    *bar,
                    Span(" "),
                    *remark,
                ),
                width,
                look.glyphs.ellipsis,
            )
        )
    return [*lines, *_foot(trace, total, (label, bar_width, width), look)]


def _axis(total_ns: int, width: int) -> Line:
    ticks = max(2, width // 14)
    text = ""
    for tick in range(ticks):
        text = text.ljust(width * tick // ticks) + format_ns(total_ns * tick // ticks)
    return line((text, "faint"))


def _remark(segment: Segment, look: Look) -> Line:
    length = format_ns(segment.duration_ns)
    if segment.estimated:
        length = f"{look.glyphs.estimate} {length}"
    note = look.glyphs.text(segment.note)
    return line(
        (length, "bold" if segment.duration_ns else "dim"),
        (f"{look.glyphs.separator}{note}" if note else "", "dim"),
    )


def _foot(trace: Trace, total: int, room: tuple[int, int, int], look: Look) -> list[Line]:
    """`room`: the widths of the labels, of the bars, and of everything."""
    label, bar_width, width = room
    lines: list[Line] = []
    until, what = trace.first_token_ns, "first token"
    if until is None:
        until, what = trace.total_ns, trace.outcome or "so far"
    words = _sums(trace, until, what, look)
    column = min(bar_width - 1, max(0, int(until / total * bar_width)))
    size, mark = width_of(words), Span(look.glyphs.now, "bold")
    if label + column + 2 + size <= width:
        lines.append((Span(" " * (label + column)), mark, Span(" "), *words))
    else:
        before = max(0, label + column - size - 1)
        lines.append((Span(" " * before), *words, Span(" "), mark))
    if trace.message:
        lines.append(line(("  message  ", "dim"), (look.glyphs.text(trace.message), "bad")))
    if trace.clock_skew:
        skew = f"  clocks contradict each other by {format_ns(trace.skew_ns)}; lengths were clamped"
        lines.append(line((skew, "warn")))
    return lines


def _sums(trace: Trace, until: int, what: str, look: Look) -> Line:
    """Where the time to the first token went; the parts are those of the trace itself."""
    waiting = trace.time_in(WAITING, until_ns=until)
    hopping = trace.time_in(HOPPING, until_ns=until)
    recovering = trace.time_in(RECOVERING, until_ns=until)
    rest = until - waiting - hopping - recovering
    separator = look.glyphs.separator
    return line(
        (f"{what} {format_ns(until)}", "bold"),
        ("  = ", "dim"),
        (f"{format_ns(waiting)} waiting", "wait"),
        (separator, "dim"),
        (f"{format_ns(hopping)} hopping", "transit"),
        (separator if recovering else "", "dim"),
        (f"{format_ns(recovering)} recovering" if recovering else "", "lost"),
        (separator, "dim"),
        (f"{format_ns(rest)} in the engine", "prefill"),
    )


# --- why here ----------------------------------------------------------------------------------


def reasons(trace: Trace, width: int, look: Look, *, limit: int | None = None) -> list[Line]:
    """Every decision about the request and every way back, in order."""
    hops = hop_numbers(trace)
    entries = [(one.attempt, 0, _decision(one, hops, width, look)) for one in trace.decisions]
    entries += [(one.attempt, 1, _comeback(one, look)) for one in trace.comebacks]
    lines: list[Line] = []
    for _, _, described in sorted(entries, key=lambda entry: entry[:2]):
        if lines:
            lines.append(EMPTY)
        lines += described
    if not lines:
        lines.append(line((" no decision was recorded: it is served where it entered", "dim")))
    if limit is not None:
        lines += [EMPTY, line((f" delegations {trace.delegations} of {limit}", "dim"))]
    return [clip(one, width, look.glyphs.ellipsis) for one in lines]


def _decision(decision: Decision, hops: Mapping[int, int], width: int, look: Look) -> list[Line]:
    glyphs = look.glyphs
    head = line(
        (f" {format_ns(decision.at_ns)} ", "dim"),
        (f"hop {hops[decision.attempt]} " if decision.attempt in hops else "", "hop"),
        (glyphs.text(decision.policy), "bold"),
        " chose ",
        (decision.replica, "bold"),
        " for ",
    )
    lines = [
        (*head, look.capability(decision.capability)),
        line(
            (f"   {glyphs.text(decision.reason)}", ""), (f"  {decision.eligible} eligible", "dim")
        ),
    ]
    name_width = max((len(one.replica) for one in decision.candidates), default=0)
    for one in decision.candidates:
        picked = one.replica == decision.replica
        score = glyphs.unknown if one.score is None else f"{one.score:.3g}"
        lines.append(
            line(
                (f"   {glyphs.ok if picked else ' '} ", "ok"),
                (f"{one.replica:<{name_width}}", "bold" if picked else ""),
                (f"  score {score:<6} credit {one.credit:<3} run {one.running:<3} ", "dim"),
                (f"wait {one.waiting}", "dim"),
                ("  picked" if picked and width >= 60 else "", "ok"),  # noqa: PLR2004 - room for it
            )
        )
    for reason, count in decision.excluded:
        words = glyphs.text(reason.replace("_", " "))
        lines.append(line((f"   {glyphs.bad} ", "faint"), (f"{count} {words}", "dim")))
    return lines


def _comeback(back: Comeback, look: Look) -> list[Line]:
    glyphs = look.glyphs
    way = _WAYS_BACK.get(back.kind, glyphs.text(back.kind))
    role = "bad" if back.kind == "lost" else "hop"
    spans = [Span(f" {glyphs.hop} ", role), Span(back.replica, "bold"), Span(f" {way}", role)]
    if back.reason:
        spans.append(Span(f": {glyphs.text(back.reason.replace('_', ' '))}"))
    lines: list[Line] = [tuple(spans)]
    if back.from_capability and back.to_capability != back.from_capability:
        lines.append(
            (
                Span("   "),
                look.capability(back.from_capability),
                Span(f" {glyphs.arrow} ", "hop"),
                look.capability(back.to_capability),
            )
        )
    if back.detail:
        lines.append(line((f"   {glyphs.text(back.detail)}", "dim")))
    return lines


# --- messages ----------------------------------------------------------------------------------


def said_columns(said: Sequence[Said]) -> tuple[Column, ...]:
    """As wide as the names need; what is left goes to the summary."""
    return (
        Column("t", "t", 9, "right", priority=80),
        Column("from", "from", widest((one.sender for one in said), 6, 18), priority=95),
        Column("to", "to", widest((one.to for one in said), 6, 18), priority=94),
        Column("message", "message", 13, priority=100),
        Column("summary", "summary", 16, priority=70, flex=True),
    )


def said_cells(
    said: Said, widths: Mapping[str, int], zero_ns: int, boot: str, look: Look
) -> dict[str, Line]:
    """A row of the conversation."""
    del widths
    glyphs = look.glyphs
    inner = not said.to
    when = format_ns(said.t_ns - zero_ns) if said.boot == boot else glyphs.unknown
    kind = "dim" if inner else "hop" if said.message in _HOPS else "bold"
    return {
        "t": line((when, "dim")),
        "from": line(glyphs.text(said.sender)),
        "to": line((glyphs.text(said.to), "")),
        "message": line((glyphs.text(said.message), kind)),
        "summary": line((glyphs.text(said.summary), "dim")),
    }


_HOPS = frozenset({"delegate", "refuse", "return", "attempt_lost", "rejected"})


def first_boot(said: Sequence[Said]) -> str:
    """The boot of the origin, whose clock the trace is on."""
    return said[0].boot if said else ""
