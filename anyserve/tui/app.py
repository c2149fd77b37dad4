"""The application: one feed, one picture at a time, and the screens that show it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from textual.app import App
from textual.binding import BindingType
from textual.screen import Screen
from textual.theme import Theme

from anyserve.errors import AnyServeError, UsageError
from anyserve.telemetry.control import Control
from anyserve.telemetry.filters import Filter, parse_filter
from anyserve.telemetry.run_times import parse_time
from anyserve.tui.bindings import action_of, bindings
from anyserve.tui.commands import KeyCommands
from anyserve.tui.feed import Feed
from anyserve.tui.frame import Frame
from anyserve.tui.glyphs import ASCII, UNICODE
from anyserve.tui.keys import KEYS, Need, Place
from anyserve.tui.options import RATES_HZ, TuiOptions
from anyserve.tui.palette import COLORLESS, Palette, palette_of
from anyserve.tui.replay import ReplayFeed
from anyserve.tui.screens.base import FrameScreen
from anyserve.tui.screens.dialogs import Confirm, Prompt
from anyserve.tui.screens.overview import OverviewScreen
from anyserve.tui.steering import Steering
from anyserve.tui.themes import CYCLE, DARK, OWN
from anyserve.tui.views.header import Mode
from anyserve.tui.views.look import Look

OK, INTERRUPTED, TERMINATED = 0, 130, 143
_SIGNALS = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: TERMINATED,
    signal.SIGHUP: TERMINATED,
}


class AnyServeApp(App[int]):
    """Shows a feed. `control` None: nothing can be steered. `clock`: monotonic seconds."""

    CSS_PATH = "app.tcss"
    TITLE = "anyserve"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS: ClassVar[Any] = {KeyCommands}
    BINDINGS: ClassVar[list[BindingType]] = list(bindings())

    def __init__(
        self,
        feed: Feed,
        control: Control | None,
        clock: Callable[[], float],
        *,
        owns_cluster: bool = False,
        options: TuiOptions | None = None,
    ) -> None:
        self.options = TuiOptions() if options is None else options
        self.feed = feed
        self.control = control
        self.clock = clock
        self.owns_cluster = owns_cluster
        self.look = Look(ASCII if self.options.ascii else UNICODE)
        self.frame: Frame = feed.frame()
        self.crash: Exception | None = None
        self._frozen_at: float | None = None
        self._paint_hz = self.options.paint_hz
        super().__init__()
        for theme in OWN:
            self.register_theme(theme)
        names = set(self.available_themes)
        self.theme = self.options.theme if self.options.theme in names else DARK.name
        self.palette = self._palette()
        self.steering = Steering(self)

    # --- life ----------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[None]:
        """The overview is always there."""
        return OverviewScreen()

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What our style sheet names, for themes that are not ours."""
        theme = self.current_theme
        return {
            "anyserve-bar": theme.surface or theme.background or "ansi_default",
            "anyserve-border": theme.panel or theme.primary,
        }

    def on_mount(self) -> None:
        """Begin to listen and to paint."""
        self.set_class(self.options.ascii, "-ascii")
        self.run_worker(self.feed.run(), name="feed", exit_on_error=True)
        self._timer = self.set_interval(1 / self._paint_hz, self.tick, name="paint")
        self.theme_changed_signal.subscribe(self, self._on_theme)
        self._catch_signals()

    def _catch_signals(self) -> None:
        """A signal from outside ends the application in order, so the terminal is restored."""
        if self.is_headless:
            return
        import asyncio  # noqa: PLC0415 - only a real terminal has signals

        loop = asyncio.get_running_loop()
        for number, code in _SIGNALS.items():
            with suppress(NotImplementedError, ValueError):
                loop.add_signal_handler(number, self.exit, code)

    async def on_unmount(self) -> None:
        """The source must not outlive its screens."""
        await self.feed.close()

    def _handle_exception(self, error: Exception) -> None:
        """Keep what went wrong, for whoever runs us; the terminal is restored first."""
        self.crash = self.crash or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Textual would print a traceback here; `run` raises `crash` instead."""
        self._close_messages_no_wait()

    # --- painting ------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take a picture and show it, unless painting is paused."""
        if self._frozen_at is None:
            self.frame = self.feed.frame()
            self.look = self.look.of(self.frame.snapshot)
        screen = self._frame_screen()
        if screen is None:
            return
        if self._frozen_at is None:
            screen.paint(self.frame)
        else:
            screen.paint_header(self.frame)

    def repaint(self) -> None:
        """Show the present picture again, also where painting is paused."""
        if self._frozen_at is None:
            self.tick()
        else:
            screen = self._frame_screen()
            if screen is not None:
                screen.paint(self.frame)

    def _frame_screen(self) -> FrameScreen | None:
        """The topmost screen that shows frames: under a dialog it goes on."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, FrameScreen):
                return screen
        return None

    def mode(self, crumbs: tuple[str, ...]) -> Mode:
        """What the header says of us."""
        stale = None if self._frozen_at is None else self.clock() - self._frozen_at
        return Mode(
            crumbs=crumbs,
            stale_s=stale,
            read_only=self.control is None,
            paint_hz=self._paint_hz,
            owns_cluster=self.owns_cluster,
        )

    # --- looks ---------------------------------------------------------------------------------

    def _palette(self) -> Palette:
        if not self.options.color:
            return COLORLESS
        theme = self.current_theme
        return palette_of(replace(theme, variables={**theme.variables}))

    def _on_theme(self, theme: Theme) -> None:
        del theme
        self.palette = self._palette()
        for screen in self.screen_stack:
            if isinstance(screen, FrameScreen):
                screen.restyle()
        self.repaint()

    # --- which keys count where ----------------------------------------------------------------

    @property
    def available(self) -> frozenset[Need]:
        """What is there for keys that need something."""
        needs = {Need.NOTHING}
        needs.add(Need.REPLAY if isinstance(self.feed, ReplayFeed) else Need.LIVE)
        if self.control is not None:
            needs.add(Need.CONTROL)
        return frozenset(needs)

    @property
    def place(self) -> Place:
        """Where the person is."""
        screen = self._frame_screen()
        return Place.ANYWHERE if screen is None else screen.place

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key of the table counts here; it is as if it were not there otherwise."""
        wanted = action if not parameters else f"{action}({parameters[0]})"
        rows = [key for key in KEYS if action_of(key) == wanted]
        if not rows:
            return super().check_action(action, parameters)
        return any(
            key.need in self.available
            and (self.place in key.places or Place.ANYWHERE in key.places)
            for key in rows
        )

    # --- moving --------------------------------------------------------------------------------

    def _list_move(self, rows: int) -> None:
        screen = self._frame_screen()
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
        screen = self._frame_screen()
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
        screen = self._frame_screen()
        if screen is not None and screen.grid is not None:
            screen.grid.open_cursor()

    def action_go_back(self) -> None:
        """A step back: a filter, a maximised panel, then the screen."""
        screen = self._frame_screen()
        if screen is None or screen.step_back():
            return
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_next_tab(self) -> None:
        screen = self._frame_screen()
        if isinstance(screen, OverviewScreen):
            screen.next_panel(1)
        elif screen is not None:
            screen.focus_next()

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
        method = getattr(self._frame_screen(), name, None)
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

    def action_errors_only(self) -> None:
        self._on_screen("toggle_errors")

    def action_next_trace(self) -> None:
        self._on_screen("turn", 1)

    def action_previous_trace(self) -> None:
        self._on_screen("turn", -1)

    def action_zoom(self) -> None:
        self._on_screen("zoom")

    def action_open_replica(self) -> None:
        self._on_screen("go_to_replica")

    def action_filter(self) -> None:
        """Ask for a filter of the list with the focus."""
        screen = self._frame_screen()
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
        self._frozen_at = self.clock() if self._frozen_at is None else None
        self.tick()

    def _set_rate(self, step: int) -> None:
        nearest = min(range(len(RATES_HZ)), key=lambda at: abs(RATES_HZ[at] - self._paint_hz))
        self._paint_hz = RATES_HZ[min(max(nearest + step, 0), len(RATES_HZ) - 1)]
        self._timer.stop()
        self._timer = self.set_interval(1 / self._paint_hz, self.tick, name="paint")
        self.notify(f"{self._paint_hz:g} pictures a second")

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
        screen = self._frame_screen()
        return None if screen is None else screen.replica_at_cursor()

    # --- the rest ------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """Copy what the cursor is on as JSON, by the terminal's clipboard."""
        screen = self._frame_screen()
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
        self.notify(f"wrote {written}")

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
