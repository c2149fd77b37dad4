"""The log of a worker, or of the replica's own process, on the whole screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from textual.widget import Widget

from anyserve.telemetry.source import SourceKind
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Place
from anyserve.tui.logfile import LogKind, LogLine, LogTail, level_of, log_path, why_no_lines
from anyserve.tui.screens.base import FilteredScreen
from anyserve.tui.spans import Line, Span
from anyserve.tui.views import log as view
from anyserve.tui.widgets.grid import LiveGrid

MOST_LINES = 5000
MOST_BYTES = 2 * 2**20


class LogScreen(FilteredScreen):
    """Follows the log until the cursor is moved; `f` follows again."""

    place = Place.LOG
    filter_fields = view.FIELDS

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica
        self._kind = LogKind.WORKER
        self._log: LogTail | None = None
        self._errors_only = False
        self._listed = 0
        self._shown_for: tuple[object, ...] = ()
        self.crumbs = ("replicas", replica, "log")

    def body(self) -> Iterator[Widget]:
        """See `FrameScreen`."""
        yield LiveGrid[view.LogRow](
            view.columns(""),
            key=view.key_of,
            render=self._cells,
            palette=self.palette,
            glyphs=self.look.glyphs,
            newest_last=True,
            id="lines",
            classes="panel",
        )

    def on_mount(self) -> None:
        """See `FrameScreen`."""
        super().on_mount()
        self._open(LogKind.WORKER)
        self._rows.follow = True
        self._rows.focus()

    @property
    def _rows(self) -> LiveGrid[view.LogRow]:
        return self.query_one("#lines", LiveGrid)

    def _cells(self, one: view.LogRow, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return view.cells(one, widths)

    def _open(self, kind: LogKind) -> None:
        self._kind = kind
        path = log_path(self.desk.frame.facts, self._replica, kind)
        limits = {"most_lines": MOST_LINES, "most_bytes": MOST_BYTES}
        self._log = None if path is None else LogTail(path, **limits)

    def paint_body(self, frame: Frame) -> None:
        """See `FrameScreen`."""
        grid = self._rows
        grid.styles.height = self.body_height
        lines = None if self._log is None else self._log.lines()
        width = grid.scrollable_content_region.width - 2
        shown_for = (lines, width, self._filter, self._errors_only, self.look)
        if width > 0 and shown_for != self._shown_for:
            self._shown_for = shown_for
            self._show(lines, width)
        self._titles(frame, len(lines or ()))

    def _show(self, lines: tuple[LogLine, ...] | None, width: int) -> None:
        path = "" if self._log is None else str(self._log.path)
        listed = [one for one in lines or () if self._wanted(one)]
        self._listed = len(listed)
        self._rows.set_columns(view.columns(self.look.glyphs.text(path)))
        self._rows.empty = self._nothing(lines)
        self._rows.show(view.rows(listed, width, self.look))

    def _wanted(self, one: LogLine) -> bool:
        if self._errors_only and level_of(one.text) == "info":
            return False
        return not self._filter or self._filter.matches(view.row_of(one))

    def _nothing(self, lines: tuple[LogLine, ...] | None) -> tuple[Line, ...]:
        path = None if self._log is None else self._log.path
        why = why_no_lines(path, lines, self._kind) or "no line is like that"
        return ((Span(self.look.glyphs.text(why), "dim"),),)

    def _titles(self, frame: Frame, total: int) -> None:
        some = f"{total}" if total == self._listed else f"{self._listed} of {total}"
        some += " line" if total == 1 else " lines"
        if self._log is not None and not self._log.whole:
            some += ", the last of more"
        notes = [f"/ {self._filter.text}"] if self._filter else []
        notes += ["warnings and errors"] if self._errors_only else []
        notes += ["of the whole run"] if frame.kind is SourceKind.REPLAY else []
        notes += ["following"] if self._rows.follow else []
        notes.append(f"tab: log of the {self._kind.other.value}")
        title = f"log of the {self._kind.value} {self._replica} · {some}"
        self._rows.label(title=self.say(title), subtitle=self.say("  ".join(notes)))

    # --- what keys do --------------------------------------------------------------------------

    def next_tab(self) -> None:
        """The log of the other process."""
        self._open(self._kind.other)
        self._rows.follow = True
        self.paint(self.desk.frame)

    def toggle_follow(self) -> None:
        """Keep the cursor on the last line, or let it be."""
        self._rows.follow = not self._rows.follow
        self._shown_for = ()
        self.paint(self.desk.frame)

    def toggle_errors(self) -> None:
        """All lines, or warnings and errors only."""
        self._errors_only = not self._errors_only
        self.paint(self.desk.frame)

    def copy_object(self) -> Any:
        """See `FrameScreen`."""
        row = self._rows.cursor_item
        if row is None or self._log is None:
            return None
        return {"log": str(self._log.path), "line": row.line.number, "text": row.line.text}
