"""The two themes of AnyServe; those that Textual brings can be chosen as well."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES, Theme

DARK = Theme(
    name="anyserve-dark",
    primary="#539bf5",
    secondary="#b083f0",
    accent="#539bf5",
    success="#57ab5a",
    warning="#daaa3f",
    error="#e5534b",
    foreground="#cdd9e5",
    background="#1c2128",
    surface="#1c2128",
    panel="#2d333b",
    dark=True,
    variables={
        "anyserve-strong": "#f0f6fc",
        "anyserve-key": "#f0b04f",
        "anyserve-on-badge": "#10151b",
        "anyserve-bar": "#161b21",
        "anyserve-border": "#3d444d",
        "anyserve-cursor": "#2d3a4d",
        "anyserve-cursor-idle": "#262c34",
        "anyserve-phase": "#2d333b",
        "anyserve-phase-text": "#909dab",
        "anyserve-phase-past": "#373e47",
        "anyserve-cap0": "#6cb6ff",
        "anyserve-cap1": "#8ddb8c",
        "anyserve-cap2": "#dcbdfb",
        "anyserve-cap3": "#f69d50",
        "anyserve-cap4": "#ff938a",
        "anyserve-cap5": "#5fd7d7",
    },
)

LIGHT = Theme(
    name="anyserve-light",
    primary="#0969da",
    secondary="#8250df",
    accent="#0969da",
    success="#1a7f37",
    warning="#9a6700",
    error="#cf222e",
    foreground="#24292f",
    background="#ffffff",
    surface="#ffffff",
    panel="#eaeef2",
    dark=False,
    variables={
        "anyserve-strong": "#000000",
        "anyserve-key": "#953800",
        "anyserve-on-badge": "#ffffff",
        "anyserve-bar": "#f0f3f6",
        "anyserve-border": "#c5ccd3",
        "anyserve-cursor": "#d3e5fb",
        "anyserve-cursor-idle": "#eef2f6",
        "anyserve-phase": "#eaeef2",
        "anyserve-phase-text": "#57606a",
        "anyserve-phase-past": "#d8dee4",
        "anyserve-cap0": "#0550ae",
        "anyserve-cap1": "#116329",
        "anyserve-cap2": "#6639ba",
        "anyserve-cap3": "#953800",
        "anyserve-cap4": "#a40e26",
        "anyserve-cap5": "#0b6b72",
    },
)

OWN = (DARK, LIGHT)
CYCLE = ("anyserve-dark", "anyserve-light", "ansi-dark", "nord", "gruvbox", "solarized-light")
"""What `T` goes through; the palette offers all."""


def theme_names() -> list[str]:
    """Every theme that can be chosen, ours first."""
    return [theme.name for theme in OWN] + sorted(BUILTIN_THEMES)
