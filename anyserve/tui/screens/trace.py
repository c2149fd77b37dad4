"""One request: where its time went, what was said, and why it went there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from textual.containers import Horizontal
from textual.widget import Widget

from anyserve.errors import AnyServeError
from anyserve.telemetry.conversation import Said, conversation
from anyserve.telemetry.trace_model import Trace, to_json
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Place
from anyserve.tui.numbers import short_id
from anyserve.tui.screens.base import FocusLines, FrameScreen
from anyserve.tui.spans import Line, line
from anyserve.tui.views import trace as view
from anyserve.tui.widgets.grid import LiveGrid

_BORDER = 2
_LEAST = 4


class TraceScreen(FrameScreen):
    """A request, and with `n` and `N` its neighbours in the list it came from."""

    place = Place.TRACE

    def __init__(self, request: str, among: tuple[str, ...]) -> None:
        super().__init__()
        self._request = request
        self._among = among or (request,)
        self._trace: Trace | None = None
        self._known = 0
        self._zoomed = False
        self.crumbs = ("requests", short_id(request))

    def body(self) -> Iterator[Widget]:
        """See `FrameScreen`."""
        palette, glyphs = self.palette, self.look.glyphs
        yield FocusLines(palette, id="waterfall", classes="panel")
        with Horizontal(id="below", classes="row"):
            yield LiveGrid[tuple[int, Said]](
                view.said_columns(()),
                key=lambda numbered: str(numbered[0]),
                render=self._said_cells,
                palette=palette,
                glyphs=glyphs,
                id="messages",
                classes="panel",
            )
            yield FocusLines(palette, id="why", classes="panel")

    def on_mount(self) -> None:
        """See `FrameScreen`."""
        super().on_mount()
        self.query_one("#messages").focus()

    def _said_cells(
        self, numbered: tuple[int, Said], widths: Mapping[str, int]
    ) -> Mapping[str, Line]:
        zero = 0 if self._trace is None else self._trace.intended_ns
        boot = view.first_boot([one for _, one in self._messages.items])
        return view.said_cells(numbered[1], widths, zero, boot, self.look)

    @property
    def _messages(self) -> LiveGrid[tuple[int, Said]]:
        return self.query_one("#messages", LiveGrid)

    def paint_body(self, frame: Frame) -> None:
        """See `FrameScreen`."""
        self._learn()
        trace, look = self._trace, self.look
        fall, why = self.query_one("#waterfall", FocusLines), self.query_one("#why", FocusLines)
        inner = max(20, self.size.width - _BORDER)
        until = None
        if trace is not None and self._zoomed:
            until = trace.first_token_ns
        lines = [line(("the request is not remembered here: anyserve trace has it", "warn"))]
        if trace is not None:
            lines = view.waterfall(trace, inner - 1, look, until_ns=until)
        self._arrange(len(lines), look.glyphs.ascii)
        fall.show(lines)
        if trace is None:
            return
        fall.label(title=self.say(view.title(trace, look)))
        zoom = "z whole request" if self._zoomed else "z zoom to first token"
        fall.label(subtitle=self.say(f"{zoom} · {self._place_in_list()}"))
        self._messages.label(title="messages, as the events tell")
        width = why.scrollable_content_region.width or inner // 2
        limit = frame.plan.delegation_limit
        why.show(view.reasons(trace, width, look, limit=limit))
        why.label(title="why here")

    def _place_in_list(self) -> str:
        if self._request not in self._among:
            return ""
        return f"{self._among.index(self._request) + 1} of {len(self._among)} · n next · N previous"

    def _learn(self) -> None:
        """Build the trace again where something more was said."""
        feed = self.desk.feed
        envelopes = feed.events_of(self._request)
        settled = self._trace is not None and self._trace.outcome is not None
        if settled and len(envelopes) == self._known:
            return
        try:
            self._trace = feed.trace(self._request)
        except AnyServeError:
            self._trace = None if not envelopes else self._trace
        if len(envelopes) != self._known or self._known == 0:
            self._known = len(envelopes)
            said = conversation(envelopes)
            self._messages.set_columns(view.said_columns(said))
            self._messages.show(list(enumerate(said)))

    def _arrange(self, lines: int, ascii_only: bool) -> None:  # noqa: FBT001 - one caller
        del ascii_only
        body = self.body_height
        top = min(lines + _BORDER + 1, max(_LEAST, body - 8))
        self.query_one("#waterfall").styles.height = top
        self.query_one("#below").styles.height = max(_LEAST, body - top)

    # --- what keys do --------------------------------------------------------------------------

    def turn(self, step: int) -> None:
        """The next request of the list, or the one before."""
        if self._request not in self._among:
            return
        place = (self._among.index(self._request) + step) % len(self._among)
        self._request = self._among[place]
        self.crumbs = ("requests", short_id(self._request))
        self._trace, self._known = None, 0
        self.paint(self.desk.frame)

    def zoom(self) -> None:
        """Up to the first token, or the whole request."""
        self._zoomed = not self._zoomed
        self.paint(self.desk.frame)

    def go_to_replica(self) -> None:
        """Open the replica that served it, or holds it."""
        trace = self._trace
        replica = None if trace is None else trace.served_by
        if replica is None and trace is not None and trace.decisions:
            replica = trace.decisions[-1].replica
        if replica is None:
            self.app.notify("no replica has it")
            return
        self.desk.open_replica(replica)

    def copy_object(self) -> Any:
        """See `FrameScreen`."""
        return None if self._trace is None else to_json(self._trace)
