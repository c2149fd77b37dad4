"""The command palette: every key by its name."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

from anyserve.tui.bindings import action_of
from anyserve.tui.keys import Key, keys_for


class KeyCommands(Provider):
    """What can be done here, as the table of keys says it."""

    def _keys(self) -> list[Key]:
        from anyserve.tui.app import AnyServeApp  # noqa: PLC0415 - it knows us

        app = self.app
        assert isinstance(app, AnyServeApp)
        hidden = {"palette", "move_down", "move_up", "back"}
        return [key for key in keys_for(app.place, app.available) if key.action not in hidden]

    def _run(self, key: Key) -> partial[Coroutine[Any, Any, bool]]:
        return partial(self.app.run_action, action_of(key))

    async def discover(self) -> Hits:
        """Everything, before anything was typed."""
        for key in self._keys():
            yield DiscoveryHit(f"{key.title}  ({key.label})", self._run(key), help=key.help)

    def _use_theme(self, name: str) -> None:
        self.app.theme = name

    async def search(self, query: str) -> Hits:
        """What fits the words: keys, and all themes by name."""
        matcher = self.matcher(query)
        for name in self.app.available_themes:
            score = matcher.match(f"theme {name}")
            if score > 0:
                yield Hit(score / 2, f"theme {name}", partial(self._use_theme, name))
        for key in self._keys():
            words = f"{key.title} {key.help}"
            score = matcher.match(words)
            if score > 0:
                title = f"{key.title}  ({key.label})"
                yield Hit(score, title, self._run(key), help=key.help)
