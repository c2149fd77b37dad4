"""Charts as inline SVG. Colours are CSS classes, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from markupsafe import Markup, escape

from anyserve.telemetry.html.scale import Scale, linear, logarithmic, milliseconds, number
from anyserve.telemetry.trace_model import Segment, Trace

WIDE, NARROW, HEIGHT = 1060, 340, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 26
_LETTER_PX = 6
COLOURS: Final = 8
"""Classes c0 to c7; later series begin again."""
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One series; `step`: a value holds until the next one."""

    name: str
    points: Sequence[Point]
    colour: int
    step: bool = False
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """A vertical line with a word, at `x`. `kind`: phase, fault or slo."""

    x: float
    text: str
    kind: str


def time_chart(lines: Sequence[Line], markers: Sequence[Marker], end_s: float, unit: str) -> Markup:
    """Values over the seconds of a run."""
    highest = max((y for line in lines for _, y in line.points), default=1.0)
    x = Scale(0.0, max(end_s, 1e-9), _LEFT, WIDE - _RIGHT)
    y = linear(max(highest, 1.0), HEIGHT - _BOTTOM, _TOP)
    return _chart(lines, markers, (x, y), (lambda value: f"{number(value)} s", number), unit)


def cdf_chart(lines: Sequence[Line], markers: Sequence[Marker]) -> Markup:
    """The share of requests that were at most so slow; milliseconds on a logarithmic axis."""
    values = [x for line in lines for x, _ in line.points] or [1.0]
    ends = [*values, *(marker.x for marker in markers)]
    x = logarithmic(min(values), max(ends), _LEFT, NARROW - _RIGHT)
    y = Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    writers = (milliseconds, lambda value: f"{value:.0%}")
    return _chart(lines, markers, (x, y), writers, "requests")


def distribution_line(name: str, values_ms: Sequence[float], colour: int) -> Line:
    """The cumulative distribution of values, with no more points than can be seen."""
    ordered = sorted(max(value, 1e-3) for value in values_ms)
    count = len(ordered)
    wanted = {round(index * (count - 1) / min(count, 256)) for index in range(min(count, 256) + 1)}
    points = [(ordered[index], (index + 1) / count) for index in sorted(wanted)]
    return Line(name, [(points[0][0], 0.0), *points], colour, step=True)


def strip(shares: Sequence[float | None], colour: int) -> Markup:
    """A narrow band of cells; the fuller, the more colour. None: nothing is known."""
    parts, at = [], 0
    width = 600 / max(1, len(shares))
    for share, group in groupby(None if one is None else round(one, 2) for one in shares):
        length = len(list(group))
        if share is not None:
            opacity = 0.06 + 0.94 * min(1.0, share)
            parts.append(
                f'<rect x="{at * width:.1f}" y="0" width="{length * width:.1f}" height="16" '
                f'class="c{colour % COLOURS} fill" opacity="{opacity:.2f}">'
                f"<title>{share:.0%} busy</title></rect>"
            )
        at += length
    return Markup(  # noqa: S704 - numbers only
        '<svg viewBox="0 0 600 16" preserveAspectRatio="none" class="strip" role="img" '
        f'aria-label="busy slots over time">{"".join(parts)}</svg>'
    )


def waterfall(trace: Trace, longest_ns: int) -> Markup:
    """Where one request's time went, on a scale that several share."""
    scale = 600 / max(1, longest_ns)
    parts = [
        f'<rect x="{segment.start_ns * scale:.2f}" y="1" '
        f'width="{max(segment.duration_ns * scale, 0.4):.2f}" height="14" '
        f'class="{segment_class(segment)} fill"><title>{_segment_title(segment)}</title></rect>'
        for segment in trace.segments
        if segment.duration_ns
    ]
    return Markup(  # noqa: S704 - texts are escaped where they go in
        '<svg viewBox="0 0 600 16" preserveAspectRatio="none" class="strip" role="img" '
        f'aria-label="waterfall of {escape(trace.id)}">{"".join(parts)}</svg>'
    )


def segment_class(segment: Segment) -> str:
    """The CSS class of a kind of segment."""
    return f"s-{segment.name.replace(' ', '-')}"


def _segment_title(segment: Segment) -> str:
    text = f"{segment.name} {segment.duration_ns / 1e6:.3g} ms, {segment.where}"
    return str(escape(text))


def _chart(
    lines: Sequence[Line],
    markers: Sequence[Marker],
    scales: tuple[Scale, Scale],
    writers: tuple[Callable[[float], str], Callable[[float], str]],
    unit: str,
) -> Markup:
    (x, y), (write_x, write_y) = scales, writers
    parts = [
        *(_y_tick(y.at(value), x.end_px, write_y(value)) for value in y.ticks(4)),
        *_x_ticks(x, write_x),
        *(_path(line, x, y) for line in lines if line.points),
        *(_marker(marker, x) for marker in markers if x.low <= marker.x <= x.high),
    ]
    label = f"{unit}: {', '.join(line.name for line in lines)}"
    return Markup(  # noqa: S704 - texts are escaped where they go in
        f'<svg viewBox="0 0 {x.end_px + _RIGHT:.0f} {HEIGHT}" class="chart" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _y_tick(y: float, end_px: float, text: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{end_px:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" class="tick end">{escape(text)}</text>'
    )


def _x_ticks(x: Scale, write: Callable[[float], str]) -> Iterator[str]:
    """Labels that fit beside each other; the last ones may not leave the picture."""
    free = 0.0
    for value in x.ticks(10):
        at, text = x.at(value), write(value)
        half = _LETTER_PX * len(text) / 2
        if at - half < free or at + half > x.end_px + _RIGHT:
            continue
        free = at + half + 2 * _LETTER_PX
        yield f'<text x="{at:.1f}" y="{HEIGHT - 8}" class="tick middle">{escape(text)}</text>'


def _path(line: Line, x: Scale, y: Scale) -> str:
    at = [(x.at(px), y.at(py)) for px, py in line.points]
    commands = [f"M{at[0][0]:.1f} {at[0][1]:.1f}"]
    for px, py in at[1:]:
        commands.append(f"H{px:.1f}V{py:.1f}" if line.step else f"L{px:.1f} {py:.1f}")
    drawn = "".join(commands)
    colour = f"c{line.colour % COLOURS}"
    area = ""
    if line.filled:
        base = y.at(0.0)
        area = (
            f'<path d="{drawn}L{at[-1][0]:.1f} {base:.1f}L{at[0][0]:.1f} {base:.1f}Z" '
            f'class="{colour} area"/>'
        )
    return (
        f'{area}<path d="{drawn}" class="{colour} line"><title>{escape(line.name)}</title></path>'
    )


def _marker(marker: Marker, x: Scale) -> str:
    at = x.at(marker.x)
    near_end = at + _LETTER_PX * len(marker.text) > x.end_px
    anchor, shift = ("end", -4) if near_end else ("start", 4)
    return (
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" '
        f'class="mark {marker.kind}"><title>{escape(marker.text)}</title></line>'
        f'<text x="{at + shift:.1f}" y="{_TOP + 8}" class="tick {anchor} {marker.kind}">'
        f"{escape(marker.text)}</text>"
    )
