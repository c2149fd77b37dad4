"""From lines of spans to Textual strips."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from anyserve.tui.palette import Palette
from anyserve.tui.spans import Line, clip, width_of


def to_strip(
    spans: Line, width: int, palette: Palette, base: Style, row: Style | None = None
) -> Strip:
    """A strip of exactly `width` cells; `row` lies under all of it, also under the padding."""
    under = base if row is None else base + row
    spans = clip(spans, width)
    segments = [Segment(span.text, under + palette.style(span.role)) for span in spans]
    missing = width - width_of(spans)
    if missing > 0:
        segments.append(Segment(" " * missing, under))
    return Strip(segments, width)
