"""What all screens share: header, advice, footer, and how a picture gets onto them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget

from anyserve.telemetry.filters import Filter
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Place, footer_keys
from anyserve.tui.palette import Palette
from anyserve.tui.views.header import advisor_line, footer_line, header_lines
from anyserve.tui.views.look import Look
from anyserve.tui.widgets.grid import LiveGrid
from anyserve.tui.widgets.lines import LiveLines

if TYPE_CHECKING:
    from anyserve.tui.app import AnyServeApp


class FocusLines(LiveLines):
    """Lines that can have the focus, to be scrolled."""

    can_focus = True


class FrameScreen(Screen[None]):
    """A screen that paints frames. Subclasses say what stands between header and footer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "app.next_tab", show=False)]
    """Textual's screens take this key for themselves."""
    place: ClassVar[Place] = Place.ANYWHERE
    crumbs: tuple[str, ...] = ()
    _ready = False
    """Its widgets are there."""

    @property
    def desk(self) -> AnyServeApp:
        """The application, with its own type."""
        from anyserve.tui.app import AnyServeApp  # noqa: PLC0415 - it knows all screens

        assert isinstance(self.app, AnyServeApp)
        return self.app

    @property
    def look(self) -> Look:
        """How things are written."""
        return self.desk.look

    @property
    def palette(self) -> Palette:
        """The colours of the present theme."""
        return self.desk.palette

    @property
    def body_height(self) -> int:
        """The lines between header and footer."""
        return self.size.height - 3 - bool(self.desk.frame.advice)

    def compose(self) -> ComposeResult:
        """Header, body, advice, footer."""
        yield LiveLines(self.palette, id="header")
        yield from self.body()
        yield LiveLines(self.palette, id="advisor")
        yield LiveLines(self.palette, id="footer")

    def body(self) -> Iterator[Widget]:
        """What stands between header and footer."""
        raise NotImplementedError

    def paint_body(self, frame: Frame) -> None:
        """Show a frame between header and footer."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Show what there is, at once."""
        self._ready = True
        self.call_after_refresh(self.paint, self.desk.frame)

    def on_screen_resume(self) -> None:
        """Something stood above this screen; time went on."""
        self.paint(self.desk.frame)

    def on_resize(self) -> None:
        """The terminal has another size."""
        self.paint(self.desk.frame)

    def paint(self, frame: Frame) -> None:
        """Show a frame, where there is anything to show it on: not before, not after."""
        if not self._ready or not self.size.width or not self.query("#footer"):
            return
        self.paint_header(frame)
        self.paint_body(frame)

    def paint_header(self, frame: Frame) -> None:
        """Header, advice and footer."""
        width, look = self.size.width, self.look
        self._lines("header").show(header_lines(frame, self.desk.mode(self.crumbs), width, look))
        advice = advisor_line(frame, width, look)
        self._lines("advisor").set_class(bool(advice), "-some")
        self._lines("advisor").show([advice] if advice else [])
        keys = footer_keys(self.place, self.desk.available)
        self._lines("footer").show([footer_line(keys, width, look)])

    def say(self, text: str) -> str:
        """A text as a border shows it: no markup."""
        return self.look.glyphs.text(text).replace("[", "\\[")

    def _lines(self, name: str) -> LiveLines:
        return self.query_one(f"#{name}", LiveLines)

    # --- what keys do ---------------------------------------------------------------------------

    @property
    def grid(self) -> LiveGrid[Any] | None:
        """The list that has the focus."""
        return self.focused if isinstance(self.focused, LiveGrid) else None

    def next_tab(self) -> None:
        """What tab does: the focus goes on."""
        self.focus_next()

    def replica_at_cursor(self) -> str | None:
        """The replica that verbs are about."""
        return None

    def copy_object(self) -> Any:
        """What `y` copies; None where there is nothing."""
        return None

    def step_back(self) -> bool:
        """Undo something of this screen's own; False where there is nothing, so it may close."""
        return False

    def restyle(self) -> None:
        """Another theme."""
        for widget in self.query(LiveLines):
            widget.use(self.palette)
        for grid in self.query(LiveGrid):
            grid.use(self.palette)


class FilteredScreen(FrameScreen):
    """A screen with one list, which a filter narrows. Subclasses name its `filter_fields`."""

    filter_fields: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        super().__init__()
        self._filter = Filter()

    @property
    def filter_text(self) -> str:
        """The filter that is set."""
        return self._filter.text

    def set_filter(self, wanted: Filter) -> None:
        """Show only what matches."""
        self._filter = wanted
        self.paint(self.desk.frame)

    def step_back(self) -> bool:
        """See `FrameScreen`."""
        if self._filter:
            self.set_filter(Filter())
            return True
        return False
