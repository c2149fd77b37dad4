"""From lines of spans to Textual strips."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.scroll_view import ScrollView
from textual.strip import Strip

from anyserve.tui.palette import Palette
from anyserve.tui.spans import Line, clip, width_of


_EVEN = Style(dim=False, reverse=True)
"""A reversed row is one bar, whatever is dim in it."""


def to_strip(
    spans: Line, width: int, palette: Palette, base: Style, row: Style | None = None
) -> Strip:
    """A strip of exactly `width` cells; `row` lies under all of it, also under the padding."""
    under = base if row is None else base + row
    spans = clip(spans, width)
    over = _EVEN if row is not None and row.reverse else Style.null()
    segments = [Segment(span.text, under + palette.style(span.role) + over) for span in spans]
    missing = width - width_of(spans)
    if missing > 0:
        segments.append(Segment(" " * missing, under))
    return Strip(segments, width)


class StyledView(ScrollView):
    """A scroll view that knows its own style without asking all its ancestors for each line."""

    _base: Style | None = None

    @property
    def base_style(self) -> Style:
        """What lies under everything that is drawn here."""
        if self._base is None:
            self._base = self.rich_style
        return self._base

    def notify_style_update(self) -> None:
        """The style sheet, the focus or the theme changed."""
        self._base = None
        super().notify_style_update()
