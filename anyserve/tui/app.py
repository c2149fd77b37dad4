"""The application: what each key of the table does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anyserve.errors import AnyServeError, UsageError
from anyserve.telemetry.control import Control
from anyserve.telemetry.filters import Filter, parse_filter
from anyserve.telemetry.run_times import parse_time
from anyserve.tui.desk import INTERRUPTED, OK, Desk
from anyserve.tui.feed import Feed
from anyserve.tui.options import RATES_HZ, TuiOptions
from anyserve.tui.replay import ReplayFeed
from anyserve.tui.screens.dialogs import Confirm, Prompt
from anyserve.tui.screens.overview import OverviewScreen
from anyserve.tui.steering import Steering
from anyserve.tui.themes import CYCLE


class AnyServeApp(Desk):
    """Screens and keys over a feed. The keys themselves, and what they mean, are in `keys`."""

    def __init__(
        self,
        feed: Feed,
        control: Control | None,
        clock: Callable[[], float],
        *,
        owns_cluster: bool = False,
        options: TuiOptions | None = None,
    ) -> None:
        super().__init__(feed, control, clock, owns_cluster=owns_cluster, options=options)
        self.steering = Steering(self)

    # --- moving --------------------------------------------------------------------------------

    def _list_move(self, rows: int) -> None:
        screen = self.frame_screen()
        focused = None if screen is None else screen.focused
        if screen is not None and screen.grid is not None:
            screen.grid.move_by(rows)
        elif focused is not None:
            focused.scroll_relative(y=rows, animate=False)

    def action_move_down(self) -> None:
        self._list_move(1)

    def action_move_up(self) -> None:
        self._list_move(-1)

    def _page(self) -> int:
        screen = self.frame_screen()
        return screen.grid.page if screen is not None and screen.grid is not None else 10

    def action_page_down(self) -> None:
        self._list_move(self._page())

    def action_page_up(self) -> None:
        self._list_move(-self._page())

    def action_move_first(self) -> None:
        self._list_move(-(10**9))

    def action_move_last(self) -> None:
        self._list_move(10**9)

    def action_open_row(self) -> None:
        screen = self.frame_screen()
        if screen is not None and screen.grid is not None:
            screen.grid.open_cursor()

    def action_go_back(self) -> None:
        """A step back: a filter, a maximised panel, then the screen."""
        screen = self.frame_screen()
        if screen is None or screen.step_back():
            return
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_next_tab(self) -> None:
        self._on_screen("next_tab")

    # --- screens -------------------------------------------------------------------------------

    def open_replica(self, name: str) -> None:
        """Everything about one replica."""
        from anyserve.tui.screens.replica import ReplicaScreen  # noqa: PLC0415 - when asked for

        self.push_screen(ReplicaScreen(name))

    def open_trace(self, request: str, among: Sequence[str] = ()) -> None:
        """One request's way; `among`: the list it came from, for next and previous."""
        from anyserve.tui.screens.trace import TraceScreen  # noqa: PLC0415 - when asked for

        self.push_screen(TraceScreen(request, tuple(dict.fromkeys(among))))

    def open_capability(self, name: str = "") -> None:
        """Who offers what."""
        from anyserve.tui.screens.capabilities import CapabilitiesScreen  # noqa: PLC0415

        self.push_screen(CapabilitiesScreen(name))

    def action_traces(self) -> None:
        from anyserve.tui.screens.traces import TracesScreen  # noqa: PLC0415 - when asked for

        if not isinstance(self.screen, TracesScreen):
            self.push_screen(TracesScreen())

    def action_capabilities(self) -> None:
        from anyserve.tui.screens.capabilities import CapabilitiesScreen  # noqa: PLC0415

        if not isinstance(self.screen, CapabilitiesScreen):
            self.open_capability()

    def action_help(self) -> None:
        from anyserve.tui.screens.help import HelpScreen  # noqa: PLC0415 - when asked for

        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        else:
            self.push_screen(HelpScreen(self.place))

    def filter_overview(self, name: str, wanted: str) -> None:
        """Back to the overview, with a filter on its replicas."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        overview = self.screen
        if isinstance(overview, OverviewScreen):
            overview.filter_panel(name, wanted)

    # --- the overview's keys --------------------------------------------------------------------

    def _on_screen(self, name: str, *values: object) -> None:
        """Call what the present screen has for a key; nothing where it has nothing."""
        method = getattr(self.frame_screen(), name, None)
        if method is not None:
            method(*values)

    def action_panel(self, number: int) -> None:
        self._on_screen("show_panel", number)

    def action_sort(self) -> None:
        self._on_screen("sort")

    def action_reverse(self) -> None:
        self._on_screen("reverse")

    def action_follow(self) -> None:
        self._on_screen("toggle_follow")

    def action_window(self) -> None:
        self._on_screen("toggle_window")

    def action_errors_only(self) -> None:
        self._on_screen("toggle_errors")

    def action_next_trace(self) -> None:
        self._on_screen("turn", 1)

    def action_previous_trace(self) -> None:
        self._on_screen("turn", -1)

    def action_zoom(self) -> None:
        self._on_screen("zoom")

    def action_open_log(self) -> None:
        self._on_screen("open_log")

    def action_open_replica(self) -> None:
        self._on_screen("go_to_replica")

    def action_filter(self) -> None:
        """Ask for a filter of the list with the focus."""
        screen = self.frame_screen()
        fields: frozenset[str] = getattr(screen, "filter_fields", frozenset())
        if screen is None or not fields:
            self.notify("this panel has no filter")
            return

        def check(text: str) -> str:
            parse_filter(text, fields)
            return ""

        def done(text: str | None) -> None:
            if text is not None:
                wanted = parse_filter(text, fields) if text.strip() else Filter()
                getattr(screen, "set_filter")(wanted)  # noqa: B009 - screens with fields have it

        hint = "known: " + ", ".join(sorted(fields)) + "\ne.g. cap:decode state:ready wait>8 -in:0"
        text = getattr(screen, "filter_text", "")
        self.push_screen(Prompt("filter", hint=hint, check=check, text=text), done)

    # --- time ----------------------------------------------------------------------------------

    def action_pause_painting(self) -> None:
        """Stop painting, or go on."""
        self.frozen_at = self.clock() if self.frozen_at is None else None
        self.tick()

    def _set_rate(self, step: int) -> None:
        nearest = min(range(len(RATES_HZ)), key=lambda at: abs(RATES_HZ[at] - self.paint_hz))
        self.paint_at(RATES_HZ[min(max(nearest + step, 0), len(RATES_HZ) - 1)])
        self.notify(f"{self.paint_hz:g} pictures a second")

    def action_paint_faster(self) -> None:
        self._set_rate(1)

    def action_paint_slower(self) -> None:
        self._set_rate(-1)

    def _replay(self) -> ReplayFeed:
        assert isinstance(self.feed, ReplayFeed)
        return self.feed

    def action_play(self) -> None:
        self._replay().toggle()
        self.tick()

    def action_jump(self, seconds: int) -> None:
        self._replay().jump(seconds)
        self.tick()

    def action_phase(self, direction: int) -> None:
        if not self._replay().phase(direction):
            self.notify("there is no further phase")
        self.tick()

    def action_next_event(self) -> None:
        if not self._replay().next_mark():
            self.notify("nothing notable comes after this")
        self.tick()

    def action_step(self) -> None:
        self._replay().step(1)
        self.tick()

    def action_step_back(self) -> None:
        self._replay().step(-1)
        self.tick()

    def action_faster(self) -> None:
        self._replay().shift_speed(1)
        self.tick()

    def action_slower(self) -> None:
        self._replay().shift_speed(-1)
        self.tick()

    def action_speed(self) -> None:
        self._replay().shift_speed(1, around=True)
        self.tick()

    def action_seek(self) -> None:
        """Ask for a time and go there."""
        feed = self._replay()
        end_s = feed.player.end_s

        def check(text: str) -> str:
            parse_time(text, end_s)
            return ""

        def done(text: str | None) -> None:
            if text:
                feed.seek(parse_time(text, end_s))
                self.tick()

        hint = "seconds (47), a time (1:05), a share (50%), or end"
        self.push_screen(Prompt("go to", hint=hint, check=check), done)

    # --- steering ------------------------------------------------------------------------------

    def action_drain(self) -> None:
        self.steering.drain(self._target())

    def action_faults(self) -> None:
        self.steering.faults(self._target())

    def action_send(self) -> None:
        self.steering.send()

    def action_rate(self) -> None:
        self.steering.rate()

    def _target(self) -> str | None:
        screen = self.frame_screen()
        return None if screen is None else screen.replica_at_cursor()

    # --- the rest ------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """Copy what the cursor is on as JSON, by the terminal's clipboard."""
        screen = self.frame_screen()
        found = None if screen is None else screen.copy_object()
        if found is None:
            self.notify("there is nothing to copy here")
            return
        text = json.dumps(found, ensure_ascii=False, indent=2, default=_plain)
        self.copy_to_clipboard(text)
        self.notify(f"copied {len(text)} characters of JSON")

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Write the screen as SVG."""
        folder = str(self.options.screenshots) if path is None else path
        try:
            written = self.save_screenshot(filename, folder)
        except OSError as error:
            self.notify(f"cannot write: {error.strerror}", severity="error")
            return
        self.notify(f"wrote {Path(written).name}", markup=False)

    def action_theme(self) -> None:
        """The next theme of the short list."""
        place = CYCLE.index(self.theme) if self.theme in CYCLE else -1
        self.theme = CYCLE[(place + 1) % len(CYCLE)]
        self.notify(f"theme {self.theme}")

    def action_leave(self) -> None:
        """Leave; ask once where that stops a cluster that still runs."""
        if not self.owns_cluster or self.frame.ended:
            self.exit(OK)
            return

        def done(yes: bool | None) -> None:  # noqa: FBT001 - Textual calls it so
            if yes:
                self.exit(OK)

        self.push_screen(
            Confirm("quit", "Quitting stops the cluster that this command started.", yes="stop it"),
            done,
        )

    def action_interrupt(self) -> None:
        """Ctrl-C."""
        self.exit(INTERRUPTED)

    def explain_failure(self, error: AnyServeError) -> None:
        """Show why something that was asked for did not happen."""
        hint = f"\n{error.hint}" if error.hint else ""
        kind = "warning" if isinstance(error, UsageError) else "error"
        self.notify(f"{error.message}{hint}", severity=kind, timeout=8, markup=False)  # type: ignore[arg-type]


def _plain(value: object) -> Any:
    """What JSON does not know: enums by value, mappings and sets by what is in them."""
    return getattr(value, "value", str(value))
