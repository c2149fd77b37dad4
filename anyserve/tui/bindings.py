"""The table of keys as Textual bindings."""

from __future__ import annotations

from textual.binding import Binding

from anyserve.tui.keys import KEYS, Key

_ACTIONS = {"open": "open_row", "back": "go_back", "quit": "leave", "palette": "command_palette"}
"""Names that Textual gives a meaning of its own."""


def action_of(key: Key) -> str:
    """The action that a key runs."""
    return _ACTIONS.get(key.action, key.action)


def bindings() -> list[Binding]:
    """All of them, for the application; `AnyServeApp.check_action` says which count where."""
    found = [
        Binding(name, action_of(key), key.title, show=False) for key in KEYS for name in key.keys
    ]
    return [*found, Binding("ctrl+c", "interrupt", "Leave", show=False, priority=True)]
