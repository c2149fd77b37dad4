"""From `module:app` in a scenario to an `App`, or to a sentence that says what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from anyserve.app.app import App, Handler
from anyserve.workload.plugins import PluginError, resolve_class


def load_app(name: str, directory: str = "") -> tuple[App, str]:
    """Import an app, looked for in `directory` first; the app, and the file that it came from.

    The directory stays on the import path: what handlers import later lies there too.

    Raises:
        UsageError: the name has another shape, or a handler is registered that is none.
        PluginError: it cannot be imported, is no `App`, or serves nothing.
    """
    place = Path(directory) if directory else None
    if place is not None and str(place) not in sys.path:
        sys.path.insert(0, str(place))
    found = resolve_class(name, place)
    app = found.factory
    if not isinstance(app, App):
        kind = type(app).__name__
        hint = f"app = anyserve.App() in {found.origin}"
        raise PluginError(
            f"'{name}' is no anyserve.App but a value of type {kind}",
            code="plugin_shape",
            hint=hint,
        )
    if not app.handlers:
        hint = "decorate a function with @app.capability(...)"
        raise PluginError(f"'{name}' serves nothing", code="app_empty", hint=hint)
    return app, found.origin


def handlers_for(app: App, name: str, serves: Iterable[str]) -> dict[str, Handler]:
    """The handler of each of these capabilities.

    Raises:
        PluginError: the app has none for one of them.
    """
    chosen: dict[str, Handler] = {}
    for capability in serves:
        handler = app.handlers.get(capability)
        if handler is None:
            known = ", ".join(sorted(app.handlers))
            near = get_close_matches(capability, list(app.handlers), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it serves {known}"
            message = f"'{name}' has no handler for '{capability}'"
            raise PluginError(message, code="handler_missing", hint=hint)
        chosen[capability] = handler
    return chosen
