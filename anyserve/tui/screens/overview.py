"""The overview: replicas, routing, delegations, events and the scenario, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Static

from anyserve.telemetry.filters import Filter, Row, parse_filter
from anyserve.telemetry.views import LatelyView, LedgerEntry, NoticeView, ReplicaView
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Place
from anyserve.tui.screens.base import FocusLines, FrameScreen
from anyserve.tui.spans import Line, Span
from anyserve.tui.views import ledger, notices, replicas, routing, scenario
from anyserve.tui.views.look import Look
from anyserve.tui.views.sizes import LEAST_HEIGHT, LEAST_WIDTH, Sizes, Wanted, divide
from anyserve.tui.widgets.drawing import StyledView
from anyserve.tui.widgets.grid import LiveGrid
from anyserve.tui.widgets.lines import LiveLines

PANELS = ("replicas", "routing", "ledger", "events", "scenario")
_TITLES = ("replicas", "routing", "delegations", "events", "scenario")
_FIELDS = {"replicas": replicas.FIELDS, "ledger": ledger.FIELDS, "events": notices.FIELDS}
_SORT_EVERY_S = 1.0
_LEFT = ("routing", "events")
_RIGHT = ("ledger", "scenario")


class OverviewScreen(FrameScreen):
    """Everything at once; one panel at a time where the terminal is small."""

    place = Place.OVERVIEW

    def __init__(self) -> None:
        super().__init__()
        self._filters: dict[str, Filter] = {}
        self._sort = "id"
        self._reverse = False
        self._sorted_at = float("-inf")
        self._order: dict[str, int] = {}
        self._ledger_for: tuple[int, Look] | None = None
        """What its rows are written with, besides the entries."""
        self._listed_for: tuple[object, ...] = ()
        self._listed: Sequence[NoticeView] = ()
        """The events as they were chosen last, and out of which."""
        self._errors_only = False
        self._whole_run: bool | None = None
        """What the routing matrix counts; None while nobody chose."""
        self._solo = False
        self._panel = "replicas"
        self._sizes = Sizes()

    # --- widgets -------------------------------------------------------------------------------

    def body(self) -> Iterator[Widget]:
        """See `FrameScreen`."""
        palette, glyphs = self.palette, self.look.glyphs
        yield LiveLines(palette, id="tabs", classes="hidden")
        yield Static(id="small", classes="hidden")
        yield LiveGrid[ReplicaView](
            replicas.columns((), self.look),
            key=lambda one: one.id,
            render=self._replica_cells,
            palette=palette,
            glyphs=glyphs,
            empty="no replica has said anything yet",
            id="replicas",
            classes="panel",
        )
        with Horizontal(id="columns"):
            with Vertical(id="left"):
                yield LiveGrid[routing.MatrixRow](
                    routing.columns(self.desk.frame.snapshot, (), 0, self.look),
                    key=lambda row: row.asked,
                    render=lambda row, widths: routing.cells(row, widths, self.look),
                    palette=palette,
                    glyphs=glyphs,
                    empty="nothing was asked for yet",
                    id="routing",
                    classes="panel",
                )
                yield LiveGrid[NoticeView](
                    notices.COLUMNS,
                    key=lambda one: f"{one.at_ns}/{one.source}/{one.text}",
                    render=self._notice_cells,
                    palette=palette,
                    glyphs=glyphs,
                    empty="nothing of note has happened",
                    id="events",
                    classes="panel",
                )
            with Vertical(id="right"):
                yield LiveGrid[LedgerEntry](
                    ledger.columns(()),
                    key=ledger.key_of,
                    render=self._ledger_cells,
                    palette=palette,
                    glyphs=glyphs,
                    empty="no request has come back to the scheduler",
                    lasting=True,
                    id="ledger",
                    classes="panel",
                )
                yield FocusLines(palette, id="scenario", classes="panel")

    def on_mount(self) -> None:
        """See `FrameScreen`."""
        super().on_mount()
        self._grid("ledger").follow = True
        self._grid("events").follow = True
        self._grid("replicas").focus()

    def _grid(self, name: str) -> LiveGrid[Any]:
        return self.query_one(f"#{name}", LiveGrid)

    def _replica_cells(self, one: ReplicaView, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return replicas.cells(one, widths, self.desk.frame, self.look)

    def _ledger_cells(self, one: LedgerEntry, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return ledger.cells(one, widths, self.desk.frame, self.look)

    def _notice_cells(self, one: NoticeView, widths: Mapping[str, int]) -> Mapping[str, Line]:
        return notices.cells(one, widths, self.desk.frame, self.look)

    # --- painting ------------------------------------------------------------------------------

    def paint_body(self, frame: Frame) -> None:
        """See `FrameScreen`."""
        wanted = Wanted(
            replicas=len(frame.snapshot.replicas),
            matrix=len(frame.snapshot.queues) + 1,
            scenario=scenario.height_of(frame),
            matrix_width=routing.needed_width(frame.snapshot),
        )
        sizes = divide(self.size.width, self.body_height, wanted)
        self._arrange(sizes)
        if sizes.too_small:
            return
        painters = (
            self._paint_replicas,
            self._paint_routing,
            self._paint_ledger,
            self._paint_events,
            self._paint_scenario,
        )
        for name, paint in zip(PANELS, painters, strict=True):
            if self._shown(name):
                paint(frame)
        if self._sizes.tabs or self._solo:
            self._paint_tabs()

    def _shown(self, name: str) -> bool:
        return name == self._panel or not (self._sizes.tabs or self._solo)

    def _paint_replicas(self, frame: Frame) -> None:
        grid = self._grid("replicas")
        grid.sort_mark = (self._sort, self._reverse)
        rows: Sequence[ReplicaView] = frame.snapshot.replicas
        if wanted := self._filters.get("replicas", Filter()):
            rows = [one for one in rows if wanted.matches(replicas.row_of(one))]
        sorted_at = self._sorted_at
        rows = self._ordered(rows)
        if self._sorted_at != sorted_at:
            grid.set_columns(replicas.columns(frame.snapshot.replicas, self.look))
        grid.show(rows)
        self._title("replicas", f"{len(rows)}", len(frame.snapshot.replicas), len(rows))

    def _ordered(self, rows: Sequence[ReplicaView]) -> list[ReplicaView]:
        """In the order of the last sorting, which is renewed once a second: rows must not jump
        under the cursor."""
        now = self.desk.clock()
        if now - self._sorted_at >= _SORT_EVERY_S or any(one.id not in self._order for one in rows):
            self._sorted_at = now
            in_order = replicas.sort_replicas(rows, self._sort, reverse=self._reverse)
            self._order = {one.id: place for place, one in enumerate(in_order)}
            return in_order
        return sorted(rows, key=lambda one: self._order[one.id])

    def _paint_routing(self, frame: Frame) -> None:
        grid = self._grid("routing")
        width = grid.scrollable_content_region.width
        room = routing.room_for(width, frame.snapshot)
        counted = self._counted(frame)
        chosen, more = routing.served_by(frame.snapshot, counted, room)
        rows = routing.matrix(frame.snapshot, counted, chosen)
        grid.set_columns(routing.columns(frame.snapshot, chosen, more, self.look))
        grid.show([*rows, routing.total_row(rows)] if rows and chosen else rows)
        self._title("routing", routing.window_name(counted), 0, 0)

    def _counted(self, frame: Frame) -> LatelyView:
        """The last seconds while the traffic runs; unless a person chose, all of it at the end."""
        snapshot = frame.snapshot
        over = frame.ended or (snapshot.run is not None and snapshot.run.ended is not None)
        whole = over if self._whole_run is None else self._whole_run
        return routing.whole_run(snapshot) if whole else snapshot.lately

    def _paint_ledger(self, frame: Frame) -> None:
        grid = self._grid("ledger")
        if self._ledger_for != (frame.zero_ns, self.look):
            self._ledger_for = (frame.zero_ns, self.look)
            grid.redraw()
        entries = frame.snapshot.ledger
        rows = list(reversed(entries))
        if wanted := self._filters.get("ledger", Filter()):
            rows = [one for one in rows if wanted.matches(ledger.row_of(one))]
        grid.set_columns(ledger.columns(rows))
        grid.show(rows)
        total = frame.snapshot.counters
        comebacks = total.delegations + total.refusals + total.returns + total.recoveries
        self._title("ledger", f"{comebacks}", len(entries), len(rows))

    def _paint_events(self, frame: Frame) -> None:
        wanted = self._filters.get("events", Filter())
        heard = frame.snapshot.notices
        listed_for = (len(heard), heard[-1:], self._errors_only, wanted)
        if self._listed_for != listed_for:
            self._listed_for = listed_for
            self._listed = notices.chosen(
                heard, errors_only=self._errors_only, everything=bool(wanted)
            )
        rows: Sequence[NoticeView] = self._listed
        if wanted:
            rows = [one for one in rows if wanted.matches(notices.row_of(one))]
        self._grid("events").show(rows)
        self._title("events", "", len(self._listed), len(rows))

    def _paint_scenario(self, frame: Frame) -> None:
        panel = self.query_one("#scenario", LiveLines)
        width = panel.scrollable_content_region.width
        if width:
            panel.show(scenario.scenario_lines(frame, width, self.look))
        self._title("scenario", frame.plan.file, 0, 0)

    def _paint_tabs(self) -> None:
        digits = self.look.glyphs.superscripts
        spans: list[Span] = []
        for number, (name, title) in enumerate(zip(PANELS, _TITLES, strict=True), start=1):
            role = "phase-now" if name == self._panel else "dim"
            spans += [Span(" "), Span(f" {digits[number]}{title} ", role)]
        self.query_one("#tabs", LiveLines).show([tuple(spans)])

    def _title(self, name: str, fact: str, total: int, shown: int) -> None:
        number = PANELS.index(name) + 1
        title = f"{self.look.glyphs.superscripts[number]}{_TITLES[number - 1]}"
        widget = self.query_one(f"#{name}", StyledView)
        if total != shown:
            fact = f"{shown} of {total}"
        if fact:
            title += f" · {self.look.glyphs.text(fact)}"
        widget.label(title=self.say(title))
        notes = []
        wanted = self._filters.get(name)
        if wanted:
            notes.append(f"/ {wanted.text}")
        if name == "events" and self._errors_only:
            notes.append("errors only")
        if isinstance(widget, LiveGrid) and widget.follow:
            notes.append("following")
        if name == "routing":
            notes.append(f"row asks · column serves · {self.look.glyphs.hop} came by delegation")
        widget.label(subtitle=self.say("  ".join(notes)))

    def _arrange(self, sizes: Sizes) -> None:
        """Give every panel its room."""
        self._sizes = sizes
        one = sizes.tabs or self._solo
        self.query_one("#small").set_class(not sizes.too_small, "hidden")
        self.query_one("#tabs").set_class(sizes.too_small or not one, "hidden")
        self.query_one("#columns").set_class(
            sizes.too_small or (one and self._panel == "replicas"), "hidden"
        )
        if sizes.too_small:
            self.query_one("#replicas").set_class(True, "hidden")
            self.query_one("#small", Static).update(
                f"The terminal has {self.size.width} x {self.size.height} cells; these screens "
                f"need {LEAST_WIDTH} x {LEAST_HEIGHT}.\n\nMake it larger, or use: anyserve status"
            )
            return
        for name in PANELS:
            self.query_one(f"#{name}").set_class(one and name != self._panel, "hidden")
        for column, members in (("left", _LEFT), ("right", _RIGHT)):
            self.query_one(f"#{column}").set_class(one and self._panel not in members, "hidden")
        self.query_one("#left").styles.width = self.size.width if one else sizes.left
        full = self.body_height - 1
        heights = {
            "replicas": sizes.top,
            "routing": sizes.matrix,
            "events": sizes.events,
            "ledger": sizes.ledger,
            "scenario": sizes.scenario,
        }
        for name, height in heights.items():
            self.query_one(f"#{name}").styles.height = full if one else height

    # --- what keys do --------------------------------------------------------------------------

    def show_panel(self, number: int) -> None:
        """Focus a panel; the one that has the focus is maximised, or shown with the others."""
        name = PANELS[number - 1]
        if name == self._panel and not self._sizes.tabs:
            self._solo = not self._solo
        self._panel = name
        self.paint(self.desk.frame)
        self.query_one(f"#{name}").focus()

    def on_descendant_focus(self) -> None:
        """A panel got the focus by tab or mouse."""
        if self.focused is not None and self.focused.id in PANELS:
            changed = self._panel != self.focused.id
            self._panel = self.focused.id
            if changed and (self._solo or self._sizes.tabs):
                self.paint(self.desk.frame)

    def next_tab(self) -> None:
        """The focus goes to the next panel, also where only one is shown."""
        place = (PANELS.index(self._panel) + 1) % len(PANELS)
        self._panel = PANELS[place]
        self.paint(self.desk.frame)
        self.query_one(f"#{self._panel}").focus()

    def step_back(self) -> bool:
        """See `FrameScreen`."""
        if self._filters.pop(self._panel, None):
            self.paint(self.desk.frame)
            return True
        if self._solo:
            self._solo = False
            self.paint(self.desk.frame)
            return True
        return False

    def sort(self) -> None:
        """Sort the replicas by the next column that is shown."""
        place = (replicas.SORTABLE.index(self._sort) + 1) % len(replicas.SORTABLE)
        self._sort = replicas.SORTABLE[place]
        self._reverse = self._sort not in replicas.RISING
        self._sorted_at = float("-inf")
        self._grid("replicas").redraw()
        self.paint(self.desk.frame)

    def reverse(self) -> None:
        """The other way round."""
        self._reverse = not self._reverse
        self._sorted_at = float("-inf")
        self._grid("replicas").redraw()
        self.paint(self.desk.frame)

    def toggle_window(self) -> None:
        """Routing: the last seconds, or the whole run."""
        self._whole_run = self._counted(self.desk.frame).length_s > 0
        self.paint(self.desk.frame)

    def toggle_errors(self) -> None:
        """Events: all, or warnings and errors only."""
        self._errors_only = not self._errors_only
        self.paint(self.desk.frame)

    def toggle_follow(self) -> None:
        """Keep the cursor on the newest row, or let it be."""
        grid = self.grid
        if grid is not None:
            grid.follow = not grid.follow
            self.paint(self.desk.frame)

    @property
    def filter_fields(self) -> frozenset[str]:
        """What a filter of the panel with the focus may name; empty where none can be set."""
        return _FIELDS.get(self._panel, frozenset())

    @property
    def filter_text(self) -> str:
        """The filter that is set."""
        return self._filters.get(self._panel, Filter()).text

    def set_filter(self, wanted: Filter) -> None:
        """Show only what matches, in the panel with the focus."""
        self._filters[self._panel] = wanted
        self._sorted_at = float("-inf")
        self.paint(self.desk.frame)

    def filter_panel(self, name: str, text: str) -> None:
        """Set the filter of a panel and go there."""
        self._filters[name] = parse_filter(text, _FIELDS[name])
        self._panel = name
        self.paint(self.desk.frame)
        self.query_one(f"#{name}").focus()

    def replica_at_cursor(self) -> str | None:
        """See `FrameScreen`."""
        item = self._grid("replicas").cursor_item
        return None if item is None else item.id

    def copy_object(self) -> Any:
        """See `FrameScreen`."""
        grid = self.grid
        item = None if grid is None else grid.cursor_item
        return None if item is None else asdict(item)

    def row_of_cursor(self) -> Row:
        """For tests and for the copy: the fields of the row with the cursor."""
        item = self._grid("replicas").cursor_item
        return {} if item is None else replicas.row_of(item)

    def on_live_grid_opened(self, message: LiveGrid.Opened) -> None:
        """Open what a row is about."""
        message.stop()
        match message.grid.id:
            case "replicas":
                self.desk.open_replica(message.key)
            case "ledger":
                ids = [entry.request for entry in message.grid.items]
                self.desk.open_trace(message.key.split("@")[0], ids)
            case "routing" if message.key:
                self.desk.open_capability(message.key)
            case _:
                return
