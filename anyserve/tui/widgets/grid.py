"""A live table: fixed columns, a cursor that stays on its row, and only changed rows repainted.

Textual's DataTable repaints everything when one cell changes. This one builds the cells of the rows
in sight, compares them with those on screen, and repaints the lines that differ: 1,000 replicas at
4 Hz cost a few per cent of a core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from textual import events
from textual.message import Message
from textual.strip import Strip

from anyserve.tui.glyphs import Glyphs
from anyserve.tui.palette import Palette
from anyserve.tui.spans import EMPTY, Line, Span, cells_of, fit
from anyserve.tui.widgets.columns import GAP, Column, fit_columns
from anyserve.tui.widgets.drawing import StyledView, to_strip

T = TypeVar("T")
_MOST_STRIPS = 500
Cells = Mapping[str, Line]
"""The cells of a row by column; a column that is absent is empty."""

Render = Callable[[T, Mapping[str, int]], Cells]
"""Makes a row's cells; gets the width of each column that is shown."""


class LiveGrid(StyledView, Generic[T]):
    """Rows of `T`. The cursor is on a key, not on a place: rows may move under it.

    `newest_last`: what follows the newest row follows the last one, not the first.
    `lasting`: an item's row is always the same until `redraw`; it is not made for each picture.
    """

    DEFAULT_CSS = """
    LiveGrid { overflow-x: hidden; scrollbar-size-vertical: 1; }
    """

    can_focus = True

    class Opened(Message):
        """Enter, or a click on the row with the cursor."""

        def __init__(self, grid: LiveGrid[Any], key: str) -> None:
            super().__init__()
            self.grid = grid
            self.key = key

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        key: Callable[[T], str],
        render: Render[T],
        palette: Palette,
        glyphs: Glyphs,
        empty: str = "",
        lasting: bool = False,
        newest_last: bool = False,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.columns = tuple(columns)
        self.empty: tuple[Line, ...] = ((Span(empty, "dim"),),)
        """What is shown instead of rows where there are none."""
        self._key, self._render_row = key, render
        self._lasting, self._newest_last = lasting, newest_last
        self._made: dict[int, tuple[T, tuple[Line | None, ...]]] = {}
        self._palette, self._glyphs = palette, glyphs
        self._items: Sequence[T] = ()
        self._index: dict[str, int] | None = {}
        self._cursor: str | None = None
        self._cursor_place = 0
        self._moved = False
        """Somebody put the cursor where it is; until then it is on the first row."""
        self._drawn: dict[int, tuple[Any, ...]] = {}
        self._strips: dict[str, tuple[tuple[Any, ...], Strip]] = {}
        """The rows as they were drawn last, by key: a row that moves is not drawn again."""
        self._layout_for: tuple[int, tuple[Column, ...]] | None = None
        self._widths: list[tuple[Column, int]] = []
        self.follow = False
        self.sort_mark: tuple[str, bool] | None = None
        """The column that the rows are sorted by, and whether the largest comes first."""

    # --- what is shown -------------------------------------------------------------------------

    @property
    def items(self) -> Sequence[T]:
        """The rows, top first."""
        return self._items

    @property
    def cursor_key(self) -> str | None:
        """The key of the row with the cursor; None where there are no rows."""
        return self._cursor

    @property
    def cursor_item(self) -> T | None:
        """The row with the cursor."""
        place = self._place_of(self._cursor or "")
        return None if place is None else self._items[place]

    def _place_of(self, key: str) -> int | None:
        """Where a row is. The index is made when somebody asks: of a list that is followed, and
        grows all the time, nobody does."""
        if self._index is None:
            self._index = {self._key(item): place for place, item in enumerate(self._items)}
        return self._index.get(key)

    def show(self, items: Sequence[T]) -> None:
        """Show these rows from now on."""
        count_before = len(self._items)
        if items is not self._items and items != self._items:
            self._index = None
        self._items = items
        if len(items) != count_before:
            self._resize_content()
        self._keep_cursor()
        self._repaint_changed()

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Other columns."""
        if tuple(columns) != self.columns:
            self.columns = tuple(columns)
            self._forget()
            self.refresh()

    def use(self, palette: Palette) -> None:
        """Another theme."""
        self._palette, self._base = palette, None
        self._forget()
        self.refresh()

    def redraw(self) -> None:
        """Paint everything again: what the rows are made with has changed."""
        self._forget()
        self.refresh()

    # --- the cursor ----------------------------------------------------------------------------

    def move_to(self, key: str) -> bool:
        """Put the cursor on a row; False where it is not there."""
        place = self._place_of(key)
        if place is None:
            return False
        self._place_cursor(place)
        return True

    def move_by(self, rows: int) -> None:
        """Move the cursor; it stops at the ends."""
        if self._items:
            self.follow = False
            place = min(max(self._cursor_place + rows, 0), len(self._items) - 1)
            self._place_cursor(place)

    def move_to_end(self, *, last: bool) -> None:
        """To the first row, or the last."""
        self.move_by(len(self._items) if last else -len(self._items))

    @property
    def page(self) -> int:
        """How many rows are in sight."""
        return max(1, self.scrollable_content_region.height - 1)

    def _place_cursor(self, place: int) -> None:
        self._moved = True
        before = self._cursor_place
        self._cursor, self._cursor_place = self._key(self._items[place]), place
        self._scroll_to_cursor()
        self._redraw_row(before)
        self._redraw_row(place)

    def _keep_cursor(self) -> None:
        """Rows changed: stay on the key; where it is gone, on the place."""
        if not self._items:
            self._cursor, self._cursor_place = None, 0
            return
        place: int | None = 0
        if self.follow:
            place = len(self._items) - 1 if self._newest_last else 0
        elif self._moved:
            place = self._place_of(self._cursor or "")
        if place is None:
            place = min(self._cursor_place, len(self._items) - 1)
        moved = place != self._cursor_place
        self._cursor, self._cursor_place = self._key(self._items[place]), place
        if moved:
            self._scroll_to_cursor()

    def _scroll_to_cursor(self) -> None:
        top = self.scroll_offset.y
        if self._cursor_place < top:
            self.scroll_to(y=self._cursor_place, animate=False, immediate=True, force=True)
        elif self._cursor_place >= top + self.page:
            y = self._cursor_place - self.page + 1
            self.scroll_to(y=y, animate=False, immediate=True, force=True)

    # --- painting ------------------------------------------------------------------------------

    def _resize_content(self) -> None:
        self.set_content_height(len(self._items) + 1)

    def _layout_columns(self, width: int) -> list[tuple[Column, int]]:
        wanted = (width, self.columns)
        if self._layout_for != wanted:
            self._layout_for = wanted
            self._forget()
            self._widths = fit_columns(self.columns, width - 2)
        return self._widths

    def _cells(self, place: int) -> tuple[Any, ...]:
        """What a row shows: to be compared with what it showed before."""
        width = self.scrollable_content_region.width
        widths = {column.key: size for column, size in self._layout_columns(width)}
        item = self._items[place]
        on_cursor = place == self._cursor_place
        return (on_cursor, on_cursor and self.has_focus, *self._texts(item, widths))

    def _texts(self, item: T, widths: Mapping[str, int]) -> tuple[Line | None, ...]:
        """A row's cells; made once for each item where nothing else shows in them."""
        if not self._lasting:
            cells = self._render_row(item, widths)
            return tuple(cells.get(key) for key in widths)
        known = self._made.get(id(item))
        if known is None or known[0] is not item:
            cells = self._render_row(item, widths)
            known = self._made[id(item)] = (item, tuple(cells.get(key) for key in widths))
        return known[1]

    def _repaint_changed(self) -> None:
        if not self.is_mounted or not self.size:
            return
        top, height = self.scroll_offset.y, self.scrollable_content_region.height
        if not self._items:
            self._forget()
            self.refresh()
            return
        bottom = min(len(self._items), top + height - 1)
        changed = [place for place in self._drawn if not top <= place < bottom]
        for place in changed:
            del self._drawn[place]
        if len(self._strips) > _MOST_STRIPS:
            self._strips.clear()
        if len(self._made) > _MOST_STRIPS:
            self._made.clear()
        for place in range(top, bottom):
            cells = self._cells(place)
            if self._drawn.get(place) != cells:
                self._drawn[place] = cells
                changed.append(place)
        self.refresh_some([place + 1 for place in changed])

    def _refresh_row(self, place: int) -> None:
        self.refresh_line(place + 1)

    def _redraw_row(self, place: int) -> None:
        self._drawn.pop(place, None)
        self._refresh_row(place)

    def render_line(self, y: int) -> Strip:
        """Textual asks for a line of the visible part; the top one is always the header."""
        width = self.scrollable_content_region.width
        if y == 0:
            return to_strip(self._header(width), width, self._palette, self.base_style)
        if not self._items:
            spans = self.empty[y - 1] if y - 1 < len(self.empty) else EMPTY
            return to_strip((Span(" "), *spans), width, self._palette, self.base_style)
        place = y - 1 + self.scroll_offset.y
        if place >= len(self._items):
            return Strip.blank(width, self.base_style)
        self._layout_columns(width)
        cells = self._drawn.get(place)
        if cells is None:
            cells = self._drawn[place] = self._cells(place)
        key = self._key(self._items[place])
        drawn = self._strips.get(key)
        if drawn is None or drawn[0] != cells or drawn[1].cell_length != width:
            drawn = self._strips[key] = (cells, self._strip(cells, width))
        return drawn[1]

    def _forget(self) -> None:
        """Nothing that was drawn counts any more."""
        self._drawn.clear()
        self._strips.clear()
        self._made.clear()

    def _strip(self, cells: tuple[Any, ...], width: int) -> Strip:
        on_cursor, focused, *texts = cells
        mark = Span(self._glyphs.cursor, "title") if focused else Span(" ")
        spans: list[Span] = [mark]
        for (column, size), text in zip(self._layout_columns(width), texts, strict=True):
            if len(spans) > 1:
                spans.append(Span(" " * GAP))
            spans.extend(fit(text or EMPTY, size, column.align, self._glyphs.ellipsis))
        row = None
        if on_cursor:
            row = self._palette.cursor if focused else self._palette.cursor_idle
        return to_strip(tuple(spans), width, self._palette, self.base_style, row)

    def _header(self, width: int) -> Line:
        spans: list[Span] = [Span(" ")]
        for column, size in self._layout_columns(width):
            if len(spans) > 1:
                spans.append(Span(" " * GAP))
            title = column.title
            if column.short and cells_of(title) > size:
                title = column.short
            role = "dim"
            if self.sort_mark is not None and self.sort_mark[0] == column.key:
                arrow = self._glyphs.down if self.sort_mark[1] else self._glyphs.up
                title, role = f"{title}{arrow}", "bold"
            spans.extend(fit((Span(title, role),), size, column.align, self._glyphs.ellipsis))
        return tuple(spans)

    # --- Textual's events ----------------------------------------------------------------------

    def on_resize(self) -> None:
        """The terminal, or the panel, has another size: keep the cursor in sight."""
        self._forget()
        self._resize_content()
        if self._items:
            self._scroll_to_cursor()
        self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """The header stays where it is, so everything is painted."""
        super().watch_scroll_y(old_value, new_value)
        self.refresh()

    def on_focus(self) -> None:
        """The cursor shows differently."""
        self.redraw()

    def on_blur(self) -> None:
        """The cursor shows differently."""
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where it was clicked; a second time opens the row."""
        place = event.y - self.gutter.top - 1 + self.scroll_offset.y
        if event.y - self.gutter.top < 1 or not 0 <= place < len(self._items):
            return
        again = place == self._cursor_place and self.has_focus
        self.follow = False
        self._place_cursor(place)
        if again:
            self.open_cursor()

    def open_cursor(self) -> None:
        """Say that the row with the cursor is to be opened."""
        if self._cursor is not None:
            self.post_message(self.Opened(self, self._cursor))
