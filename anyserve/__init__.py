"""AnyServe: a capability-oriented serving runtime for LLM inference.

`App`, `Context` and `ObjRef` are what user code needs to serve capabilities (`docs/handlers.md`),
`Client` and `AsyncClient` what it needs to call them (`docs/client.md`). They are loaded when they
are first used: `import anyserve` by itself stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anyserve.version import __version__

if TYPE_CHECKING:
    from anyserve.app.app import App
    from anyserve.app.context import Context, Objects
    from anyserve.client import AsyncClient, Client
    from anyserve.core.objects import ObjRef
    from anyserve.errors import CallError, InvalidRequestError, ObjectError

__all__ = [
    "App",
    "AsyncClient",
    "CallError",
    "Client",
    "Context",
    "InvalidRequestError",
    "ObjRef",
    "ObjectError",
    "Objects",
    "__version__",
]

_HOMES = {
    "App": "anyserve.app.app",
    "AsyncClient": "anyserve.client",
    "CallError": "anyserve.errors",
    "Client": "anyserve.client",
    "Context": "anyserve.app.context",
    "InvalidRequestError": "anyserve.errors",
    "ObjRef": "anyserve.core.objects",
    "ObjectError": "anyserve.errors",
    "Objects": "anyserve.app.context",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
