"""Help: what the keys do here, and what the columns mean; made from the table of keys."""

from __future__ import annotations

from collections.abc import Iterator

from textual.widget import Widget

from anyserve.telemetry.advisor import RULES
from anyserve.tui.frame import Frame
from anyserve.tui.keys import Need, Place, keys_for
from anyserve.tui.screens.base import FocusLines, FrameScreen
from anyserve.tui.spans import EMPTY, Line, clip, line
from anyserve.tui.views.look import Look

_KEY = 8
_TITLE = 14
_COLUMN = 11

WORDS: tuple[tuple[str, str], ...] = (
    ("busy", "running and waiting over 60 s; full height is all slots, red means more wait"),
    ("wait", "requests that wait at the replica, before the engine has them"),
    ("run", "requests in slots, of all slots"),
    ("kv cache", "share of the engine's KV cache in use"),
    ("ttft p95", "time to first token of the latest requests, from the time they were meant to go"),
    ("in, out", "requests that came by delegation, and that were delegated away"),
    ("routing", "attempts started, by what was asked and where; its title says of which time"),
    ("hop", "from the hand-back at one replica to the next assignment"),
    ("·  –", "nothing  unknown; 0 is a measured zero"),  # noqa: RUF001 - means unknown everywhere
)


def help_lines(place: Place, available: frozenset[Need], width: int, look: Look) -> list[Line]:
    """Keys that count at a place first, those that count everywhere after them."""
    keys = keys_for(place, available)
    here = [key for key in keys if Place.ANYWHERE not in key.places]
    everywhere = [key for key in keys if Place.ANYWHERE in key.places]
    ascii_only = look.glyphs.ascii
    lines: list[Line] = []
    for title, group in ((f"on this screen ({place.value})", here), ("everywhere", everywhere)):
        if not group:
            continue
        lines += [line((f" {title}", "bold"))]
        lines += [
            line(
                (f"  {key.shown(ascii_only=ascii_only):<{_KEY}}", "key"),
                f"{look.glyphs.text(key.title):<{_TITLE}}",
                (look.glyphs.text(key.help), "dim"),
            )
            for key in group
        ]
        lines.append(EMPTY)
    lines.append(line((" what columns mean", "bold")))
    lines += [
        line((f"  {look.glyphs.text(name):<{_COLUMN}}", "title"), (look.glyphs.text(text), "dim"))
        for name, text in WORDS
    ]
    lines += [EMPTY, line((" when the advisor speaks", "bold"))]
    lines += [line((f"  {rule.code}  ", "warn"), (rule.title, "dim")) for rule in RULES]
    lines += [
        EMPTY,
        line((" filters", "bold")),
        line(("  cap:decode state:saturated,lost wait>8 ttft>800ms -in:0 text", "title")),
        line(("  words are joined by and, commas by or; - turns a word round", "dim")),
    ]
    return [clip(one, width, look.glyphs.ellipsis) for one in lines]


class HelpScreen(FrameScreen):
    """What can be done at the place where help was asked for."""

    place = Place.TEXT
    crumbs = ("help",)

    def __init__(self, about: Place) -> None:
        super().__init__()
        self._about = about

    def body(self) -> Iterator[Widget]:
        """See `FrameScreen`."""
        yield FocusLines(self.palette, id="help", classes="panel")

    def on_mount(self) -> None:
        """See `FrameScreen`."""
        super().on_mount()
        self.query_one("#help").focus()

    def paint_body(self, frame: Frame) -> None:
        """See `FrameScreen`."""
        del frame
        panel = self.query_one("#help", FocusLines)
        panel.styles.height = self.body_height
        width = max(20, (panel.scrollable_content_region.width or self.size.width) - 1)
        panel.show(help_lines(self._about, self.desk.available, width, self.look))
        panel.label(title="help")
        panel.label(subtitle=self.say("esc back"))
