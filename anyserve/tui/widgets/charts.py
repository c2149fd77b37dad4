"""Small charts as text: sparks on a shared scale, meters, stacked bars."""

from __future__ import annotations

from collections.abc import Sequence

from anyserve.tui.glyphs import Glyphs
from anyserve.tui.spans import Line, Span

_LEVELS = 8
_TIGHT = 0.75
_FULL = 0.9


def spark(values: Sequence[float | None], full: float, glyphs: Glyphs) -> Line:
    """One cell per value, `full` high: nothing is a dot, unknown a blank, above `full` alarms.

    All sparks that are to be compared get the same `full`; none is scaled by itself.
    """
    spans: list[Span] = []
    for value in values:
        if value is None:
            text, role = " ", ""
        elif value <= 0:
            text, role = glyphs.zero, "faint"
        elif value > full:
            text, role = glyphs.levels[-1], "spark-over"
        else:
            level = min(_LEVELS, max(1, round(value / full * _LEVELS)))
            text = glyphs.levels[level - 1]
            role = "spark-full" if value >= full else "spark"
        if spans and spans[-1].role == role:
            spans[-1] = Span(spans[-1].text + text, role)
        else:
            spans.append(Span(text, role))
    return tuple(spans)


def bars(values: Sequence[float], full: float, glyphs: Glyphs, role: str) -> Line:
    """A spark of one role, for a series that has no limit; nothing is a blank."""
    text = ""
    for value in values:
        level = 0 if value <= 0 or full <= 0 else max(1, round(min(1, value / full) * _LEVELS))
        text += glyphs.levels[level - 1] if level else " "
    return (Span(text, role),)


def meter(share: float | None, width: int, glyphs: Glyphs) -> Line:
    """A share of 1 as a bar; from three quarters on it warns, from nine tenths it alarms."""
    if share is None:
        return (Span(glyphs.rest * width, "faint"),)
    filled = min(width, max(int(share > 0), round(share * width)))
    role = "bad" if share >= _FULL else "warn" if share >= _TIGHT else "ok"
    return (Span(glyphs.bar * filled, role), Span(glyphs.rest * (width - filled), "faint"))


def bar_at(start: float, length: float, width: int, glyphs: Glyphs, role: str) -> Line:
    """A bar from `start` to `start + length`, both shares of `width` cells; never nothing."""
    first = min(width - 1, int(start * width))
    eighths = max(1, round(length * width * _LEVELS))
    if glyphs.ascii:
        cells = max(1, round(eighths / _LEVELS))
        return (Span(" " * first), Span("#" * min(cells, width - first), role))
    whole, part = divmod(eighths, _LEVELS)
    text = glyphs.eighths[-1] * whole + (glyphs.eighths[part - 1] if part else "")
    return (Span(" " * first), Span(text[: width - first], role))


def resample(
    points: Sequence[tuple[int, float]],
    start_ns: int,
    end_ns: int,
    width: int,
    *,
    hold: bool = True,
) -> list[float | None]:
    """Points in time as `width` equal stretches, the highest of each; a gap keeps the last value
    unless that does not `hold`.

    A stretch before the first point is unknown. The stretches stand at multiples of their own
    length, so a chart moves on when one is full and not with every picture.
    """
    span = max(1, end_ns - start_ns)
    step = max(1, span // width)
    end_ns = -(-end_ns // step) * step
    start_ns, span = end_ns - step * width, step * width
    values: list[float | None] = [None] * width
    before: float | None = None
    for at_ns, value in points:
        if at_ns < start_ns:
            before = value
            continue
        index = min(width - 1, (at_ns - start_ns) * width // span)
        known = values[index]
        values[index] = value if known is None else max(known, value)
    for index, known in enumerate(values if hold else ()):
        if known is None:
            values[index] = before
        else:
            before = known
    return values


def split_bar(parts: Sequence[tuple[float, str]], width: int, glyphs: Glyphs) -> Line:
    """Parts of a whole as one bar of exactly `width` cells; a part above 0 has at least one."""
    total = sum(value for value, _ in parts)
    if total <= 0 or width <= 0:
        return (Span(glyphs.rest * width, "faint"),)
    sizes = [max(int(value > 0), int(value / total * width)) for value, _ in parts]
    while sum(sizes) != width:
        over = sum(sizes) > width
        index = max(range(len(parts)), key=lambda at: parts[at][0] if not over else sizes[at])
        sizes[index] += -1 if over else 1
    full = glyphs.eighths[-1]
    return tuple(
        Span(full * size, role) for size, (_, role) in zip(sizes, parts, strict=True) if size
    )
