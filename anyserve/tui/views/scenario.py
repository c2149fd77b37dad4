"""The scenario's timeline: what was planned, where the run is, and what is expected of it."""

from __future__ import annotations

from collections.abc import Sequence

from anyserve.telemetry.judge import Judged, Standing
from anyserve.telemetry.series import SeriesView
from anyserve.tui.frame import Frame
from anyserve.tui.numbers import clock, rate
from anyserve.tui.spans import EMPTY, Line, Span, clip, fit, line, plain, width_of
from anyserve.tui.views.look import Look
from anyserve.tui.widgets.charts import bars

_LABEL = 9
_NS_PER_S = 1_000_000_000
_LEAST_CHART = 20
_FINE = 2
_FAULT_ENDS = frozenset({"resume", "heal"})


def scenario_lines(frame: Frame, width: int, look: Look) -> list[Line]:
    """Series, phases, marks and expectations, `width` cells wide."""
    chart = max(_LEAST_CHART, width - _LABEL - 9)
    length_s = max(frame.length_s, 1.0)
    lines = [
        *_series(frame, chart, length_s, look),
        _phases(frame, chart, length_s, look),
        _marks(frame, chart, length_s, look),
    ]
    judged = [_expectation(one, width, look) for one in frame.judged]
    return [clip(one, width, look.glyphs.ellipsis) for one in [*lines, *judged]]


def height_of(frame: Frame) -> int:
    """How many lines there are."""
    return 4 + len(frame.judged)


def _label(text: str) -> Span:
    return Span(f" {text:<{_LABEL - 1}}", "dim")


# --- offered and served ------------------------------------------------------------------------


def _series(frame: Frame, width: int, length_s: float, look: Look) -> list[Line]:
    series = frame.snapshot.series
    offered = spread(series, series.offered, frame, width, length_s)
    served = spread(series, series.completed, frame, width, length_s)
    planned = _planned(frame, width, length_s)
    full = max([1e-9, *offered, *served, *planned])
    now = _column(frame.run_s or 0.0, width, length_s)
    past = bars(offered[: now + 1], full, look.glyphs, "spark")
    ahead = bars(planned[now + 1 :], full, look.glyphs, "planned")
    return [
        (_label("offered"), *past, *ahead, *_rate(frame.rates.offered)),
        (
            _label("served"),
            *fit(bars(served[: now + 1], full, look.glyphs, "served"), width),
            *_rate(frame.rates.completed),
        ),
    ]


def _rate(value: float | None) -> Line:
    return line((f" {rate(value):>5}/s", "" if value else "dim"))


def spread(
    series: SeriesView, counts: Sequence[int], frame: Frame, width: int, length_s: float
) -> list[float]:
    """Counts per bucket as requests a second in each of `width` columns of the timeline."""
    begin_s = frame.seconds(series.start_ns) if series.offered else 0.0
    bucket_s = series.bucket_ns / _NS_PER_S
    column_s = length_s / width
    columns = [0.0] * width
    for number, value in enumerate(counts):
        if not value:
            continue
        start = begin_s + number * bucket_s
        first, last = start / column_s, (start + bucket_s) / column_s
        for index in range(max(0, int(first)), min(width, int(last) + 1)):
            share = (min(last, index + 1) - max(first, index)) / (last - first)
            columns[index] += max(0.0, share) * value / column_s
    return columns


def _planned(frame: Frame, width: int, length_s: float) -> list[float]:
    columns = [0.0] * width
    column_s = length_s / width
    smooth = max(1, round(1 / column_s))
    for at_ns in frame.plan.offers_ns:
        index = int(at_ns / _NS_PER_S / column_s)
        if index < width:
            columns[index] += 1 / column_s
    return _smoothed(columns, smooth)


def _smoothed(values: Sequence[float], span: int) -> list[float]:
    """The mean over a second around each column: single requests would flicker as spikes."""
    if span <= 1:
        return list(values)
    return [
        sum(values[at // span * span : at // span * span + span])
        / len(values[at // span * span : at // span * span + span])
        for at in range(len(values))
    ]


# --- phases and marks --------------------------------------------------------------------------


def _phases(frame: Frame, width: int, length_s: float, look: Look) -> Line:
    spans = [_label("phase")]
    known = phases_of(frame)
    now_s = frame.run_s
    at = 0
    for name, start_s, end_s in known:
        start = _edge(start_s, width, length_s)
        end = _edge(end_s, width, length_s)
        if start > at:
            spans.append(Span(" " * (start - at)))
        role = "phase"
        if now_s is not None and now_s >= end_s:
            role = "phase-past"
        elif now_s is not None and now_s >= start_s:
            role = "phase-now"
        text = f"|{name}" if look.glyphs.ascii else f" {name}"
        size = max(0, end - max(start, at))
        gap = 1 if size > _FINE and end < width else 0
        spans.extend(fit((Span(text, role),), size - gap))
        spans[-1] = Span(spans[-1].text, role) if spans[-1].text.isspace() else spans[-1]
        if gap:
            spans.append(Span(" "))
        at = max(end, at)
    if not known:
        spans.append(Span("no phases known", "dim"))
    return tuple(spans)


def phases_of(frame: Frame) -> list[tuple[str, float, float]]:
    """(name, start, end) in seconds: as planned, else as they began."""
    if frame.plan.phases:
        return [(p.name, p.start_ns / 1e9, p.end_ns / 1e9) for p in frame.plan.phases]
    return [
        (phase.name, frame.seconds(phase.at_ns), frame.seconds(phase.at_ns) + phase.planned_s)
        for phase in frame.snapshot.phases
    ]


def _marks(frame: Frame, width: int, length_s: float, look: Look) -> Line:
    """Now, and the faults: those that happened, and those that are still to come."""
    marks: list[tuple[float, Line]] = []
    happened = [(frame.seconds(one.at_ns), one) for one in frame.snapshot.faults]
    for at_s, fault in happened:
        text = look.glyphs.text(f"{fault.action} {fault.target}")
        marks.append((at_s, line((f"{look.glyphs.bad} {text}", "bad"))))
    done = {(one.action, one.target) for _, one in happened}
    for planned in frame.plan.faults:
        if (planned.action, planned.target) not in done:
            text = look.glyphs.text(f"{planned.action} {planned.target}")
            marks.append((planned.at_ns / 1e9, line((f"({text})", "faint"))))
    if frame.run_s is not None:
        at = clock(frame.run_s)
        marks.append((min(frame.run_s, length_s), line((f"{look.glyphs.now} {at}", "bold"))))
    return (_label(""), *_place(marks, width, length_s))


def _place(marks: Sequence[tuple[float, Line]], width: int, length_s: float) -> Line:
    """Marks at their columns; one that finds its place taken stands behind the other."""
    spans: list[Span] = []
    at = 0
    for at_s, text in sorted(marks, key=lambda mark: mark[0]):
        column = min(_column(at_s, width, length_s), max(0, width - width_of(text)))
        column = max(column, at + 1 if at else 0)
        if column + width_of(text) > width + 8:
            break
        spans.append(Span(" " * (column - at)))
        spans.extend(text)
        at = column + width_of(text)
    return tuple(spans)


def _column(at_s: float, width: int, length_s: float) -> int:
    return min(width - 1, max(0, int(at_s / length_s * width)))


def _edge(at_s: float, width: int, length_s: float) -> int:
    return min(width, max(0, round(at_s / length_s * width)))


# --- expectations ------------------------------------------------------------------------------

_STANDINGS = {
    Standing.MET: ("ok", "ok"),
    Standing.FAILED: ("bad", "bad"),
    Standing.HOLDING: ("pending", "ok"),
    Standing.NOT_YET: ("pending", "info"),
    Standing.UNKNOWN: ("pending", "warn"),
}


def _expectation(one: Judged, width: int, look: Look) -> Line:
    glyph, role = _STANDINGS[one.standing]
    mark = getattr(look.glyphs, glyph)
    words = look.glyphs.text(one.text)
    value = "" if one.actual is None else f"  {_value(one.actual)}"
    if one.standing is Standing.HOLDING:
        value += " so far"
    spans = line(
        (f" {mark} ", role),
        (words, "dim" if one.standing is Standing.NOT_YET else ""),
        (value, role),
    )
    note = look.glyphs.text(one.note) if one.standing is Standing.UNKNOWN else ""
    if note and len(plain(spans)) + len(note) + 2 <= width:
        spans = (*spans, Span(f"  {note}", "dim"))
    return spans or EMPTY


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
