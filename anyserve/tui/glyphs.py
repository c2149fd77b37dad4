"""The characters of the screens: one set for terminals with Unicode, one for plain ASCII."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anyserve.telemetry.text import clean

_STATES = {
    "ready": "●", "saturated": "▲", "draining": "▽", "starting": "◐", "loading": "◐", "lost": "✖",
    "stopped": "■",
}  # fmt: skip
_ASCII_STATES = {
    "ready": "o", "saturated": "^", "draining": "v", "starting": "~", "loading": "~", "lost": "X",
    "stopped": "#",
}  # fmt: skip
_ARROWS = str.maketrans({"→": ">", "·": "-", "–": "-", "…": "~", "≤": "<", "≥": ">", "≈": "~"})  # noqa: RUF001 - those that other layers write


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Every special character that a screen may show.

    `levels` rise from almost nothing to full; `eighths` grow from left to right.
    """

    ascii: bool = False
    levels: str = "▁▂▃▄▅▆▇█"
    eighths: str = "▏▎▍▌▋▊▉█"
    zero: str = "·"
    unknown: str = "–"  # noqa: RUF001 - means unknown everywhere
    bar: str = "━"
    rest: str = "─"
    hop: str = "↷"
    arrow: str = "→"
    lost_arrow: str = "⇢"
    nowhere: str = "∅"
    ok: str = "✔"
    bad: str = "✖"
    pending: str = "…"
    now: str = "▲"
    dot: str = "●"
    cursor: str = "▌"
    down: str = "▼"
    up: str = "▲"
    separator: str = " · "
    estimate: str = "≈"
    times: str = "\N{MULTIPLICATION SIGN}"
    enter: str = "⏎"
    branch: str = "├ "
    last_branch: str = "└ "
    trunk: str = "│ "
    ellipsis: str = "…"
    play: str = "▶"
    pause: str = "❚❚"
    states: Mapping[str, str] = field(default_factory=lambda: _STATES)
    superscripts: str = "⁰¹²³⁴⁵⁶⁷⁸⁹"

    def state(self, name: str) -> str:
        """The shape of a replica's state."""
        return self.states.get(name, "?")

    def text(self, text: str) -> str:
        """Foreign text: one line, nothing that steers a terminal, ASCII where it must be."""
        plain = clean(text)
        if not self.ascii:
            return plain
        return plain.translate(_ARROWS).encode("ascii", "replace").decode()


UNICODE = Glyphs()
ASCII = Glyphs(
    ascii=True,
    levels="._-:=+*#",
    eighths="########",
    zero=".",
    unknown="-",
    bar="=",
    rest="-",
    hop="~",
    arrow=">",
    lost_arrow="!>",
    nowhere="none",
    ok="+",
    bad="X",
    pending="?",
    now="^",
    dot="*",
    cursor=">",
    down="v",
    up="^",
    separator=" - ",
    estimate="~",
    times="x",
    enter="Enter",
    branch="|-",
    last_branch="`-",
    trunk="| ",
    ellipsis="~",
    play=">",
    pause="||",
    states=_ASCII_STATES,
    superscripts="0123456789",
)
