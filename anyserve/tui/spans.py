"""Text with a role: what every screen is made of before a theme gives it colours.

A `Span` is a text and the role it plays; a `Line` is spans from left to right. Nothing here knows a
colour, so the same lines serve every theme, NO_COLOR and the text goldens of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size


class Span(NamedTuple):
    """`role` is a name that `palette.Palette` knows; "" is plain text."""

    text: str
    role: str = ""


Line = tuple[Span, ...]
EMPTY: Line = ()


def line(*parts: str | Span | tuple[str, str]) -> Line:
    """A line out of plain strings and (text, role) pairs; empty texts are left out."""
    spans = (Span(part) if isinstance(part, str) else Span(*part) for part in parts)
    return tuple(span for span in spans if span.text)


def width_of(spans: Iterable[Span]) -> int:
    """How many terminal cells a line takes."""
    return sum(cells_of(span.text) for span in spans)


def cells_of(text: str) -> int:
    """How many terminal cells a text takes."""
    return len(text) if text.isascii() else cell_len(text)


def plain(spans: Iterable[Span]) -> str:
    """The text alone."""
    return "".join(span.text for span in spans)


def clip(spans: Line, width: int, ellipsis: str = "…") -> Line:
    """At most `width` cells; what was cut off shows as an ellipsis."""
    if width_of(spans) <= width:
        return spans
    if width <= 0:
        return EMPTY
    kept: list[Span] = []
    room = width - 1
    for span in spans:
        size = cells_of(span.text)
        if size >= room:
            kept.append(Span(set_cell_size(span.text, room) + ellipsis, span.role))
            break
        kept.append(span)
        room -= size
    return tuple(kept)


def fit(spans: Line, width: int, align: str = "left", ellipsis: str = "…") -> Line:
    """Exactly `width` cells, padded on the far side of `align`."""
    cut = clip(spans, width, ellipsis)
    missing = width - width_of(cut)
    if missing <= 0:
        return cut
    padding = Span(" " * missing)
    return (padding, *cut) if align == "right" else (*cut, padding)


def join(lines: Sequence[Line], gap: str = "  ") -> Line:
    """Lines side by side, `gap` between those that are not empty."""
    joined: list[Span] = []
    for one in lines:
        if not one:
            continue
        if joined:
            joined.append(Span(gap))
        joined.extend(one)
    return tuple(joined)


class Part(NamedTuple):
    """A piece of a status line; of a line that is too long, low `priority` goes first."""

    priority: int
    spans: Line


def fit_parts(parts: Sequence[Part], width: int, gap: str = "   ") -> Line:
    """The parts side by side, without the least important ones where `width` is too small."""
    kept = [part for part in parts if part.spans]
    while len(kept) > 1 and width_of(join([part.spans for part in kept], gap)) > width:
        kept.remove(min(reversed(kept), key=lambda part: part.priority))
    return clip(join([part.spans for part in kept], gap), width)


def wrap(parts: Sequence[Line], width: int, gap: str = "   ") -> list[Line]:
    """The parts side by side on as many lines as they need; a part is never broken."""
    lines: list[Line] = []
    for part in parts:
        longer = join([lines[-1], part], gap) if lines else part
        if lines and width_of(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(clip(part, width))
    return lines
