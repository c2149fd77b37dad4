"""Roles to styles: from a theme, or without any colour.

Where there is no colour, bold, reverse and underline keep what red and yellow said; the shapes that
the screens write beside every state say it a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from rich.color import Color as RichColor
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

CAPABILITY_ROLES = 6

_PLAIN: Mapping[str, Style] = {
    "": Style(),
    "dim": Style(dim=True),
    "faint": Style(dim=True),
    "bold": Style(bold=True),
    "title": Style(bold=True),
    "key": Style(bold=True),
    "ok": Style(),
    "warn": Style(bold=True, underline=True),
    "bad": Style(bold=True, reverse=True),
    "info": Style(),
    "hop": Style(bold=True),
    "badge-live": Style(reverse=True, bold=True),
    "badge-replay": Style(reverse=True, bold=True),
    "badge-sim": Style(reverse=True, bold=True),
    "badge-paused": Style(reverse=True, bold=True, underline=True),
    "badge-ended": Style(reverse=True),
    "phase": Style(dim=True, underline=True),
    "phase-now": Style(reverse=True, bold=True),
    "phase-past": Style(underline=True),
    "spark": Style(),
    "spark-full": Style(bold=True),
    "spark-over": Style(bold=True, reverse=True),
    "planned": Style(dim=True),
    "served": Style(),
    "wait": Style(dim=True),
    "transit": Style(bold=True),
    "prefill": Style(),
    "decode": Style(bold=True),
    "lost": Style(reverse=True),
    **{f"cap{n}": Style(bold=True) for n in range(CAPABILITY_ROLES)},
}


@dataclass(frozen=True)
class Palette:
    """The style of every role; `cursor` and `cursor_idle` lie under a row with the cursor."""

    styles: Mapping[str, Style]
    cursor: Style
    cursor_idle: Style
    _cache: dict[str, Style] = field(default_factory=dict)
    _over: dict[tuple[Style, str], Style] = field(default_factory=dict)

    def style(self, role: str) -> Style:
        """The style of a role; several roles may be joined by spaces, later ones win."""
        found = self.styles.get(role)
        if found is not None:
            return found
        found = self._cache.get(role)
        if found is None:
            found = Style.combine(self.styles.get(one, Style()) for one in role.split())
            self._cache[role] = found
        return found

    def over(self, under: Style, role: str) -> Style:
        """The style of a role on top of what lies under it."""
        found = self._over.get((under, role))
        if found is None:
            found = self._over[under, role] = under + self.style(role)
        return found


COLORLESS = Palette(_PLAIN, Style(reverse=True), Style(underline=True))


def palette_of(theme: Theme) -> Palette:
    """The styles that a theme gives to the roles."""
    return _from_variables(tuple(sorted({**_generated(theme), **theme.variables}.items())))


def _generated(theme: Theme) -> dict[str, str]:
    return theme.to_color_system().generate()


@lru_cache(maxsize=8)
def _from_variables(items: tuple[tuple[str, str], ...]) -> Palette:
    variables = dict(items)

    def color(*names: str) -> RichColor | None:
        for name in names:
            value = variables.get(name)
            if value:
                parsed = _parse(value)
                if parsed is not None:
                    return parsed
        return None

    def fg(*names: str, bold: bool = False) -> Style:
        return Style(color=color(*names), bold=bold or None)

    def badge(back: str) -> Style:
        return Style(color=color("anyserve-on-badge", "background"), bgcolor=color(back), bold=True)

    def chip(front: str, back: str) -> Style:
        return Style(color=color(front, "foreground"), bgcolor=color(back, "panel"))

    muted = _muted(variables)
    faint = _muted(variables, 0.62)
    styles = {
        "": Style(),
        "dim": muted,
        "faint": faint,
        "bold": fg("anyserve-strong", "foreground", bold=True),
        "title": fg("primary", bold=True),
        "key": fg("anyserve-key", "accent", bold=True),
        "ok": fg("anyserve-ok", "success"),
        "warn": fg("anyserve-warn", "warning"),
        "bad": fg("anyserve-bad", "error", bold=True),
        "info": fg("anyserve-info", "primary"),
        "hop": fg("anyserve-hop", "secondary"),
        "badge-live": badge("success"),
        "badge-replay": badge("primary"),
        "badge-sim": badge("secondary"),
        "badge-paused": badge("warning"),
        "badge-ended": chip("foreground", "panel"),
        "phase": chip("anyserve-phase-text", "anyserve-phase"),
        "phase-past": chip("foreground", "anyserve-phase-past"),
        "phase-now": badge("warning"),
        "spark": fg("anyserve-info", "primary"),
        "spark-full": fg("anyserve-warn", "warning"),
        "spark-over": fg("anyserve-bad", "error"),
        "planned": faint,
        "served": fg("anyserve-ok", "success"),
        "wait": fg("anyserve-warn", "warning"),
        "transit": fg("anyserve-hop", "secondary"),
        "prefill": fg("anyserve-info", "primary"),
        "decode": fg("anyserve-ok", "success"),
        "lost": fg("anyserve-bad", "error"),
    }
    fallback = ("primary", "success", "secondary", "warning", "accent", "error")
    for n in range(CAPABILITY_ROLES):
        styles[f"cap{n}"] = fg(f"anyserve-cap{n}", fallback[n], bold=True)
    cursor = Style(bgcolor=color("anyserve-cursor", "panel"))
    idle = Style(bgcolor=color("anyserve-cursor-idle", "surface"))
    if cursor.bgcolor is None:
        cursor, idle = Style(reverse=True), Style(underline=True)
    return Palette(styles, cursor, idle)


def _parse(value: str) -> RichColor | None:
    try:
        parsed = Color.parse(value)
    except ColorParseError:
        return None
    if parsed.ansi == -1 or (parsed.a == 0 and parsed.ansi is None):
        return None
    return parsed.rich_color


def _muted(variables: Mapping[str, str], share: float = 0.4) -> Style:
    """The foreground, `share` of the way to the background; terminal themes have `dim` for it."""
    try:
        front, back = Color.parse(variables["foreground"]), Color.parse(variables["background"])
    except (KeyError, ColorParseError):
        return Style(dim=True)
    if front.ansi is not None or back.ansi is not None:
        return Style(dim=True)
    return Style(color=front.blend(back, share).rich_color)
