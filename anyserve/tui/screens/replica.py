"""One replica: its facts, its load, the requests at it, its delegations and its log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from textual.containers import Horizontal
from textual.widget import Widget

from anyserve.telemetry.views import LedgerEntry, ReplicaView, RequestView
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Place
from anyserve.tui.logfile import LogKind, LogTail, log_path, why_no_lines
from anyserve.tui.screens.base import FocusLines, FrameScreen
from anyserve.tui.spans import Line, line, wrap
from anyserve.tui.views import ledger, requests
from anyserve.tui.views import log as log_view
from anyserve.tui.views import replica as view
from anyserve.tui.widgets.grid import LiveGrid

_FACTS = 18
_BORDER = 2
_LOG_ROLES = {"error": "bad", "warn": "warn", "info": "dim"}


class ReplicaScreen(FrameScreen):
    """Everything about one replica."""

    place = Place.REPLICA

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica
        self._log: LogTail | None = None
        self.crumbs = ("replicas", replica)

    def body(self) -> Iterator[Widget]:
        """See `FrameScreen`."""
        palette, glyphs = self.palette, self.look.glyphs
        with Horizontal(id="above", classes="row"):
            yield FocusLines(palette, id="facts", classes="panel")
            yield LiveGrid[RequestView](
                requests.HERE_COLUMNS,
                key=lambda one: one.id,
                render=self._request_cells,
                palette=palette,
                glyphs=glyphs,
                empty="no request is here now",
                id="here",
                classes="panel",
            )
        with Horizontal(id="below", classes="row"):
            yield LiveGrid[LedgerEntry](
                ledger.columns(()),
                key=ledger.key_of,
                render=self._ledger_cells,
                palette=palette,
                glyphs=glyphs,
                empty="nothing was delegated from here or to here",
                id="hops",
                classes="panel",
            )
            yield FocusLines(palette, id="log", classes="panel")

    def on_mount(self) -> None:
        """See `FrameScreen`."""
        super().on_mount()
        path = log_path(self.desk.frame.facts, self._replica, LogKind.WORKER)
        self._log = None if path is None else LogTail(path)
        self.query_one("#hops").focus()

    def _grid(self, name: str) -> LiveGrid[Any]:
        return self.query_one(f"#{name}", LiveGrid)

    def _request_cells(self, one: RequestView, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return requests.here_cells(one, widths, self.desk.frame, self.look)

    def _ledger_cells(self, one: LedgerEntry, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return ledger.cells(one, widths, self.desk.frame, self.look)

    def paint_body(self, frame: Frame) -> None:
        """See `FrameScreen`."""
        self._arrange()
        replica = self._view(frame)
        facts = self.query_one("#facts", FocusLines)
        facts.label(title=self.say(f"replica {self._replica}"))
        width = facts.scrollable_content_region.width
        if replica is None:
            facts.show([line((f"{self._replica} has not said anything", "warn"))])
            return
        facts.show(view.facts_lines(replica, frame, max(20, width), self.look))
        here = [one for one in frame.snapshot.requests if one.replica == self._replica]
        self._grid("here").show(here)
        self._grid("here").label(title=self.say(f"requests here · {len(here)}"))
        hops = [
            one
            for one in reversed(frame.snapshot.ledger)
            if self._replica in {one.from_replica, one.to_replica}
        ]
        self._grid("hops").set_columns(ledger.columns(hops))
        self._grid("hops").show(hops)
        self._grid("hops").label(title=self.say(f"delegations from and to it · {len(hops)}"))
        self._paint_log()

    def _view(self, frame: Frame) -> ReplicaView | None:
        return next((one for one in frame.snapshot.replicas if one.id == self._replica), None)

    def _paint_log(self) -> None:
        panel = self.query_one("#log", FocusLines)
        panel.label(title="worker log")
        path = None if self._log is None else self._log.path
        lines = None if self._log is None else self._log.lines()
        width = max(10, panel.scrollable_content_region.width - 1)
        why = why_no_lines(path, lines, LogKind.WORKER)
        panel.label(subtitle="" if why else "o whole screen")
        if why or lines is None:
            panel.show(wrap([line((f" {word}", "dim")) for word in why.split()], width, ""))
            return
        at_end = panel.scroll_offset.y >= panel.max_scroll_y
        rows = log_view.rows(lines, width - 1, self.look)
        panel.show([line((f" {row.text}", _LOG_ROLES[row.level])) for row in rows])
        if at_end:
            panel.call_after_refresh(panel.scroll_end, animate=False, immediate=True)

    def _arrange(self) -> None:
        body = self.body_height
        stacked = self.size.width < 120  # noqa: PLR2004 - as the overview
        top = min(_FACTS + _BORDER, max(6, int(body * 0.62)))
        self.query_one("#above").styles.height = top
        self.query_one("#below").styles.height = max(4, body - top)
        self.query_one("#here").set_class(stacked, "hidden")
        self.query_one("#log").set_class(stacked, "hidden")

    # --- what keys do --------------------------------------------------------------------------

    def open_log(self) -> None:
        """The log on the whole screen."""
        from anyserve.tui.screens.log import LogScreen  # noqa: PLC0415 - when asked for

        self.app.push_screen(LogScreen(self._replica))

    def replica_at_cursor(self) -> str | None:
        """See `FrameScreen`."""
        return self._replica

    def copy_object(self) -> Any:
        """See `FrameScreen`."""
        grid = self.grid
        item = None if grid is None else grid.cursor_item
        if item is None:
            item = self._view(self.desk.frame)
        return None if item is None else asdict(item)

    def on_live_grid_opened(self, message: LiveGrid.Opened) -> None:
        """Open a request's trace."""
        message.stop()
        ids = [getattr(one, "request", getattr(one, "id", "")) for one in message.grid.items]
        self.desk.open_trace(message.key.split("@")[0], ids)
