"""A widget of ready-made lines: header, footer, charts, facts. Repaints only what changed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.geometry import Size
from textual.strip import Strip

from anyserve.tui.palette import Palette
from anyserve.tui.spans import EMPTY, Line
from anyserve.tui.widgets.drawing import StyledView, to_strip


class LiveLines(StyledView):
    """Shows lines; `show` compares them with those on screen and repaints the others."""

    DEFAULT_CSS = """
    LiveLines { height: auto; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """

    can_focus = False

    def __init__(
        self, palette: Palette, *, id: str | None = None, classes: str | None = None  # noqa: A002 - Textual's name
    ) -> None:  # fmt: skip
        super().__init__(id=id, classes=classes)
        self._palette = palette
        self._lines: tuple[Line, ...] = ()

    @property
    def lines_shown(self) -> tuple[Line, ...]:
        """What is shown."""
        return self._lines

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines from now on."""
        new, old = tuple(lines), self._lines
        if new == old:
            return
        self._lines = new
        if len(new) != len(old):
            self.virtual_size = Size(self.scrollable_content_region.width, len(new))
            self.refresh(layout=True)
            return
        both = enumerate(zip(old, new, strict=True))
        self.refresh_some(index for index, (before, after) in both if before != after)

    def use(self, palette: Palette) -> None:
        """Another theme."""
        self._palette, self._base = palette, None
        self.refresh()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As high as its lines, where the height is `auto`."""
        del container, viewport, width
        return len(self._lines)

    def render_line(self, y: int) -> Strip:
        """Textual asks for a line of the visible part."""
        index = y + self.scroll_offset.y
        spans = self._lines[index] if index < len(self._lines) else EMPTY
        width = self.scrollable_content_region.width
        return to_strip(spans, width, self._palette, self.base_style)
