"""All requests that are remembered: in flight and settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from textual.widget import Widget

from anyserve.telemetry.views import RequestView
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Place
from anyserve.tui.screens.base import FilteredScreen
from anyserve.tui.spans import Line
from anyserve.tui.views import requests as view
from anyserve.tui.widgets.grid import LiveGrid


class TracesScreen(FilteredScreen):
    """A list of requests, newest first unless it is sorted otherwise."""

    place = Place.TRACES
    filter_fields = view.FIELDS
    crumbs = ("requests",)

    def __init__(self) -> None:
        super().__init__()
        self._sort, self._reverse = "time", True

    def body(self) -> Iterator[Widget]:
        """See `FrameScreen`."""
        yield LiveGrid[RequestView](
            view.COLUMNS,
            key=lambda one: one.id,
            render=self._cells,
            palette=self.palette,
            glyphs=self.look.glyphs,
            empty="no request was offered yet",
            id="requests",
            classes="panel",
        )

    def on_mount(self) -> None:
        """See `FrameScreen`."""
        super().on_mount()
        self._rows.focus()

    @property
    def _rows(self) -> LiveGrid[RequestView]:
        return self.query_one("#requests", LiveGrid)

    def _cells(self, one: RequestView, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return view.cells(one, widths, self.desk.frame, self.look)

    def paint_body(self, frame: Frame) -> None:
        """See `FrameScreen`."""
        grid = self._rows
        grid.styles.height = self.body_height
        known: Sequence[RequestView] = view.all_requests(frame.snapshot)
        rows = known
        if self._filter:
            rows = [one for one in known if self._filter.matches(view.row_of(one, frame))]
        if self._sort != "time" or not self._reverse:
            rows = view.sort_requests(rows, self._sort, reverse=self._reverse)
        grid.sort_mark = (self._sort, self._reverse)
        grid.show(rows)
        some = f"{len(rows)} of {len(known)}" if self._filter else f"{len(known)}"
        grid.label(title=self.say(f"requests · {some}"))
        notes = [f"/ {self._filter.text}"] if self._filter else []
        notes += ["following"] if grid.follow else []
        grid.label(subtitle=self.say("  ".join(notes)))

    # --- what keys do --------------------------------------------------------------------------

    def sort(self) -> None:
        """By the next column."""
        self._sort = view.SORTABLE[(view.SORTABLE.index(self._sort) + 1) % len(view.SORTABLE)]
        self._reverse = self._sort not in view.RISING
        self._rows.redraw()
        self.paint(self.desk.frame)

    def reverse(self) -> None:
        """The other way round."""
        self._reverse = not self._reverse
        self._rows.redraw()
        self.paint(self.desk.frame)

    def toggle_follow(self) -> None:
        """Keep the cursor on the newest row, or let it be."""
        self._rows.follow = not self._rows.follow
        self.paint(self.desk.frame)

    def copy_object(self) -> Any:
        """See `FrameScreen`."""
        item = self._rows.cursor_item
        return None if item is None else asdict(item)

    def on_live_grid_opened(self, message: LiveGrid.Opened) -> None:
        """Open a request's trace."""
        message.stop()
        self.desk.open_trace(message.key, [one.id for one in self._rows.items])
