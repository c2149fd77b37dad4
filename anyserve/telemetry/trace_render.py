"""A trace as plain text: a waterfall, why it went where it went, and what the waiting cost."""

from __future__ import annotations

from dataclasses import dataclass

from anyserve.telemetry.text import clean, format_ns
from anyserve.telemetry.trace_model import (
    HOPPING,
    RECOVERING,
    WAITING,
    Comeback,
    Decision,
    Segment,
    Trace,
)

MIN_WIDTH = 60
_NAME_WIDTH = 16
_LEAST_BAR_SHARE = 0.4
_EIGHTHS = "▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class _Glyphs:
    separator: str
    arrow: str
    picked: str
    first: str
    estimate: str
    unknown: str

    def plain(self, text: str) -> str:
        """Text from events and labels, without control characters and with these arrows."""
        return clean(text).replace(" → ", self.arrow).replace(" · ", self.separator)


_UNICODE = _Glyphs(" · ", "→", "✔", "▲", "≈", "–")  # noqa: RUF001 - "unknown" everywhere
_ASCII = _Glyphs(" - ", "->", "*", "^", "~", "-")


def render_trace(trace: Trace, width: int = 100, *, ascii: bool = False) -> str:  # noqa: A002 - the flag users know
    """Lines of at most `width` columns (at least 60 are used), each bar at its place in time."""
    glyphs = _ASCII if ascii else _UNICODE
    width = max(width, MIN_WIDTH)
    lines = [*_headline(trace, width, glyphs), ""]
    lines += _waterfall(trace, width, glyphs, ascii=ascii)
    lines += ["", *_footer(trace, glyphs)]
    lines += _reasons(trace, glyphs)
    lines += _family(trace, glyphs)
    text = "\n".join(_clip(line, width) for line in lines) + "\n"
    return text.encode("ascii", "replace").decode() if ascii else text


def _clip(line: str, width: int) -> str:
    return line.rstrip() if len(line) <= width else line[: width - 1].rstrip() + "~"


def _headline(trace: Trace, width: int, glyphs: _Glyphs) -> list[str]:
    hops = f"{trace.hops} hop" + ("" if trace.hops == 1 else "s")
    parts = [
        f"request {clean(trace.id)}",
        trace.asked,
        f"{trace.prompt_tokens} in / {trace.n_tokens} of {trace.max_tokens} out",
        hops if not trace.recoveries else f"{hops}, {trace.recoveries} recovered",
        f"{trace.outcome or 'running'} {format_ns(trace.total_ns)}",
    ]
    if trace.code:
        parts.append(clean(trace.code))
    lines = [parts[0]]
    for part in parts[1:]:
        longer = lines[-1] + glyphs.separator + part
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(f"  {part}")
    return lines


def _waterfall(trace: Trace, width: int, glyphs: _Glyphs, *, ascii: bool) -> list[str]:  # noqa: A002
    wheres = [glyphs.plain(segment.where) for segment in trace.segments]
    where_width = min(max(len(where) for where in wheres), 26)
    label_width = _NAME_WIDTH + where_width + 2
    remarks = [_remark(segment, glyphs) for segment in trace.segments]
    room = width - label_width
    bar_width = max(int(room * _LEAST_BAR_SHARE), room - 1 - max(map(len, remarks)))
    lines = [" " * label_width + _axis(trace.total_ns, bar_width)]
    for segment, where, remark in zip(trace.segments, wheres, remarks, strict=True):
        label = f"{segment.name:<{_NAME_WIDTH}}{_fit(where, where_width):<{where_width}}  "
        bar = _bar(segment, trace.total_ns, bar_width, ascii=ascii)
        lines.append(f"{label}{bar} {remark}")
    if trace.first_token_ns is not None and trace.total_ns:
        column = min(bar_width - 1, bar_width * max(0, trace.first_token_ns) // trace.total_ns)
        lines.append(" " * (label_width + column) + f"{glyphs.first} first token")
    return lines


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _axis(total_ns: int, bar_width: int) -> str:
    ticks = max(2, bar_width // 12)
    line = ""
    for tick in range(ticks):
        column = bar_width * tick // ticks
        line = line.ljust(column) + format_ns(total_ns * tick // ticks)
    return line


def _bar(segment: Segment, total_ns: int, width: int, *, ascii: bool) -> str:  # noqa: A002
    if not total_ns:
        return ""
    start = width * 8 * segment.start_ns // total_ns
    length = -(-width * 8 * segment.duration_ns // total_ns)
    indent = " " * min(start // 8, width - 1)
    if ascii:
        return indent + ("#" * max(1, round(length / 8)) if segment.duration_ns else "|")
    if not segment.duration_ns:
        return indent + _EIGHTHS[0]
    full, part = divmod(length, 8)
    return indent + "█" * full + (_EIGHTHS[part - 1] if part else "")


def _remark(segment: Segment, glyphs: _Glyphs) -> str:
    length = format_ns(segment.duration_ns)
    if segment.estimated:
        length = f"{glyphs.estimate} {length}"
    return glyphs.separator.join(part for part in (length, glyphs.plain(segment.note)) if part)


def _footer(trace: Trace, glyphs: _Glyphs) -> list[str]:
    until, what = trace.first_token_ns, "first token"
    if until is None:
        until, what = trace.total_ns, trace.outcome or "so far"
    line = (
        f"{what} {format_ns(until)}  ({format_ns(trace.time_in(WAITING, until_ns=until))} waiting, "
        f"{format_ns(trace.time_in(HOPPING, until_ns=until))} hopping"
    )
    recovering = trace.time_in(RECOVERING, until_ns=until)
    lines = [line + (f", {format_ns(recovering)} recovering)" if recovering else ")")]
    if trace.message:
        lines.append(f"message: {glyphs.plain(trace.message)}")
    if trace.clock_skew:
        lines.append(
            f"clock skew: recorded times contradict each other by {format_ns(trace.skew_ns)}; "
            "lengths were clamped"
        )
    return lines


def _reasons(trace: Trace, glyphs: _Glyphs) -> list[str]:
    entries = [(decision.attempt, 0, _decision(decision, glyphs)) for decision in trace.decisions]
    entries += [(back.attempt, 1, [_comeback(back, glyphs)]) for back in trace.comebacks]
    if not entries:
        return []
    lines = ["", "why here"]
    for _, _, described in sorted(entries, key=lambda entry: entry[:2]):
        lines += described
    return lines


def _family(trace: Trace, glyphs: _Glyphs) -> list[str]:
    """Who asked for this request, where a handler did, and what its own handler asked for."""
    lines = ["", f"asked for by the handler of {clean(trace.parent)}"] if trace.parent else []
    if trace.calls:
        lines += ["", "its handler asked for"]
    width = max((len(call.capability) for call in trace.calls), default=0)
    for call in trace.calls:
        took = glyphs.unknown if call.duration_ns is None else format_ns(call.duration_ns)
        lines.append(
            f"  at {format_ns(call.at_ns):<9} {clean(call.capability):<{width}}  {took:<9} "
            f"{call.outcome or 'running':<10} {clean(call.id)}"
        )
    return lines


def _decision(decision: Decision, glyphs: _Glyphs) -> list[str]:
    chose = f"{clean(decision.policy)} chose {decision.replica} for {decision.capability}"
    why = f"{glyphs.plain(decision.reason)} ({decision.eligible} eligible)"
    lines = [f"  at {format_ns(decision.at_ns)} {chose}: {why}"]
    for candidate in decision.candidates:
        mark = glyphs.picked if candidate.replica == decision.replica else " "
        score = glyphs.unknown if candidate.score is None else f"{candidate.score:.3g}"
        lines.append(
            f"    {mark} {candidate.replica:<12} score {score:<8} "
            f"credit {candidate.credit:<4} run {candidate.running:<4} wait {candidate.waiting}"
        )
    if decision.excluded:
        counts = ", ".join(f"{count} {clean(reason)}" for reason, count in decision.excluded)
        lines.append(f"      not considered: {counts}")
    return lines


_WAYS_BACK = {
    "delegate": "delegated it",
    "refuse": "refused it",
    "return": "returned it",
    "lost": "was lost with it",
}


def _comeback(back: Comeback, glyphs: _Glyphs) -> str:
    text = f"  {back.replica} {_WAYS_BACK.get(back.kind, clean(back.kind))}"
    if back.reason:
        text += f": {clean(back.reason)}"
    if back.from_capability:
        text += f", {back.from_capability}{glyphs.arrow}{back.to_capability}"
    return text + (f" ({glyphs.plain(back.detail)})" if back.detail else "")
