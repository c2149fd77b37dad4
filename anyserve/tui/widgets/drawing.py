"""From lines of spans to Textual strips."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
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
    if row is not None and row.reverse:
        segments = [Segment(span.text, palette.over(under, span.role) + _EVEN) for span in spans]
    else:
        segments = [Segment(span.text, palette.over(under, span.role)) for span in spans]
    missing = width - width_of(spans)
    if missing > 0:
        segments.append(Segment(" " * missing, under))
    return Strip(_joined(segments), width)


def _joined(segments: list[Segment]) -> list[Segment]:
    """Neighbours of one style are one; `Strip.simplify` would make a second strip of it."""
    joined = segments[:1]
    for segment in segments[1:]:
        last = joined[-1]
        if segment.style == last.style:
            joined[-1] = Segment(last.text + segment.text, last.style)
        else:
            joined.append(segment)
    return joined


def _thumb(room: int, lines: int) -> int:
    """How many cells high the thumb of a scrollbar is; another row seldom changes that."""
    return round(room * room / max(lines, 1))


class StyledView(ScrollView):
    """A scroll view that knows its own style without asking all its ancestors for each line."""

    _base: Style | None = None
    _labels: tuple[str, str] = ("", "")
    _silent = False

    @property
    def base_style(self) -> Style:
        """What lies under everything that is drawn here."""
        if self._base is None:
            self._base = self.rich_style
        return self._base

    def label(self, *, title: str | None = None, subtitle: str | None = None) -> None:
        """Set what stands in the border; only the border is painted again, and only if it changed.

        Textual repaints a whole widget for its title, and titles count things that change all the
        time.
        """
        before = self._labels
        after = (before[0] if title is None else title, before[1] if subtitle is None else subtitle)
        if after == before:
            return
        self._labels = after
        self._silent = True
        try:
            self.border_title, self.border_subtitle = after
        finally:
            self._silent = False
        width, height = self.outer_size
        self.refresh(Region(-1, -1, width, 1), Region(-1, height - 2, width, 1))

    def refresh(
        self,
        *regions: Region,
        repaint: bool = True,
        layout: bool = False,
        recompose: bool = False,
    ) -> Self:
        """As Textual's, but silent while `label` sets what it paints itself."""
        if self._silent:
            return self
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def refresh_some(self, lines: Iterable[int]) -> None:
        """Paint these lines again; neighbours at once, because each region costs by itself."""
        block: list[int] = []
        for y in sorted(lines):
            if block and y != block[-1] + 1:
                self.refresh_lines(block[0], len(block))
                block = []
            block.append(y)
        if block:
            self.refresh_lines(block[0], len(block))

    def set_content_height(self, lines: int) -> None:
        """So many lines can be scrolled through. The screen is laid out again only where a
        scrollbar comes or goes; Textual would do it for every row that is added."""
        size, room = Size(self.scrollable_content_region.width, lines), self.container_size.height
        if size == self.virtual_size:
            return
        same_bar = (self.virtual_size.height > room) == (lines > room)
        if not same_bar or size.width != self.virtual_size.width or not self.is_attached:
            self.virtual_size = size
            return
        self.set_reactive(StyledView.virtual_size, size)
        bar = self.vertical_scrollbar
        if lines > room and _thumb(room, lines) != _thumb(room, bar.window_virtual_size):
            bar.window_virtual_size = lines

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:  # noqa: FBT001 - as Textual calls it
        """A bar that comes does not know where the view stands."""
        if shown:
            self.vertical_scrollbar.position = self.scroll_y

    def notify_style_update(self) -> None:
        """The style sheet, the focus or the theme changed."""
        self._base = None
        super().notify_style_update()
