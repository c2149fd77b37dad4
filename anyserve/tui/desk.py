"""What the application stands on: one feed, one picture at a time, themes, and which keys count."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from textual.app import App
from textual.binding import BindingType
from textual.filter import ANSIToTruecolor, LineFilter, Monochrome
from textual.screen import Screen
from textual.theme import Theme

from anyserve.telemetry.control import Control
from anyserve.tui.bindings import action_of, bindings
from anyserve.tui.commands import KeyCommands
from anyserve.tui.feed import Feed
from anyserve.tui.frame import Frame
from anyserve.tui.glyphs import ASCII, UNICODE
from anyserve.tui.keys import KEYS, Need, Place
from anyserve.tui.options import TuiOptions
from anyserve.tui.palette import COLORLESS, Palette, palette_of
from anyserve.tui.replay import ReplayFeed
from anyserve.tui.screens.base import FrameScreen
from anyserve.tui.screens.overview import OverviewScreen
from anyserve.tui.themes import DARK, OWN
from anyserve.tui.views.header import Mode
from anyserve.tui.views.look import Look

OK, INTERRUPTED, TERMINATED = 0, 130, 143
_SIGNALS = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: TERMINATED,
    signal.SIGHUP: TERMINATED,
}


class Desk(App[int]):
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
        self.frozen_at: float | None = None
        """Since when painting is paused."""
        self.paint_hz = self.options.paint_hz
        super().__init__()
        for theme in OWN:
            self.register_theme(theme)
        names = set(self.available_themes)
        self.theme = self.options.theme if self.options.theme in names else DARK.name
        self.palette = self._palette()

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
        self._timer = self.set_interval(1 / self.paint_hz, self.tick, name="paint")
        self.theme_changed_signal.subscribe(self, self._on_theme)
        self._catch_signals()

    def _catch_signals(self) -> None:
        """A signal from outside ends the application in order, so the terminal is restored."""
        if self.is_headless:
            return
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
        if self.frozen_at is None:
            self.frame = self.feed.frame()
            self.look = self.look.of(self.frame.snapshot)
        screen = self.frame_screen()
        if screen is None:
            return
        if self.frozen_at is None:
            screen.paint(self.frame)
        else:
            screen.paint_header(self.frame)

    def repaint(self) -> None:
        """Show the present picture again, also where painting is paused."""
        if self.frozen_at is None:
            self.tick()
        else:
            screen = self.frame_screen()
            if screen is not None:
                screen.paint(self.frame)

    def frame_screen(self) -> FrameScreen | None:
        """The topmost screen that shows frames: under a dialog it goes on."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, FrameScreen):
                return screen
        return None

    def mode(self, crumbs: tuple[str, ...]) -> Mode:
        """What the header says of us."""
        stale = None if self.frozen_at is None else self.clock() - self.frozen_at
        return Mode(
            crumbs=crumbs,
            stale_s=stale,
            read_only=self.control is None,
            paint_hz=self.paint_hz,
            owns_cluster=self.owns_cluster,
        )

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Without colour, also what the style sheet paints is grey.

        All colours are those of a theme: none has to be translated, and asking each line of each
        widget for it at every picture cost a tenth of what painting costs.
        """
        found = super().get_line_filters()
        filters = [one for one in found if not isinstance(one, ANSIToTruecolor)]
        return filters if self.options.color else [*filters, Monochrome()]

    # --- looks ---------------------------------------------------------------------------------

    def _palette(self) -> Palette:
        if not self.options.color:
            return COLORLESS
        theme = self.current_theme
        return palette_of(theme)

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
        screen = self.frame_screen()
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

    def paint_at(self, hz: float) -> None:
        """So many pictures a second from now on."""
        self.paint_hz = hz
        self._timer.stop()
        self._timer = self.set_interval(1 / hz, self.tick, name="paint")
