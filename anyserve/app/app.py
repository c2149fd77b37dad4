"""`App`: which function or class serves which capability."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyserve.app.signature import Shape, shape_of
from anyserve.core.capability import is_name
from anyserve.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


@dataclass(frozen=True, slots=True)
class Handler:
    """One capability of an app: a function, or a class whose `handle` serves it."""

    capability: str
    attributes: dict[str, str]
    target: Callable[..., Any]
    """The function, or the class."""
    is_worker: bool
    shape: Shape

    @property
    def name(self) -> str:
        """What people call it."""
        return getattr(self.target, "__qualname__", repr(self.target))


@dataclass(slots=True)
class App:
    """Handlers, by the capability that they serve. One module-level object, named in scenarios as
    `module:app`.

        app = App()

        @app.capability("rerank", model="minilm")
        async def rerank(ctx: Context, query: Query) -> Ranking: ...
    """

    handlers: dict[str, Handler] = field(default_factory=dict)

    def capability(self, name: str, /, **attributes: str) -> Callable[[F], F]:
        """Let a function serve a capability: `async def`, an async generator (each `yield` is a
        piece of a stream), or plain (those run in threads).

        It takes the payload, the context, or both: the parameter annotated `Context`, or called
        `ctx`, gets the context. The payload is checked against its annotation.

        Raises:
            UsageError: not a capability's name, a second handler for one, or other parameters.
        """

        def register(function: F) -> F:
            if inspect.isclass(function):
                self._refuse(name, f"{function.__name__} is a class", "use @app.worker")
            self._add(name, attributes, function, is_worker=False)
            return function

        return register

    def worker(self, *, capability: str, **attributes: str) -> Callable[[C], C]:
        """Let a class serve a capability. Each worker process makes one object without arguments,
        calls its `on_start` once before the first request, `handle` as a function above for each
        request, and `on_stop` at the end. All three may be async.

        Raises:
            UsageError: as `capability`, or the class has no `handle`.
        """

        def register(cls: C) -> C:
            if not callable(getattr(cls, "handle", None)):
                self._refuse(capability, f"{cls.__name__} has no handle", "def handle(self, ...)")
            self._add(capability, attributes, cls, is_worker=True)
            return cls

        return register

    def _add(
        self, name: str, attributes: dict[str, str], target: Callable[..., Any], *, is_worker: bool
    ) -> None:
        if not is_name(name):
            hint = "lower case words joined by dots, such as rerank or decode.heavy"
            self._refuse(str(name), "that is no name of a capability", hint)
        if name in self.handlers:
            hint = "one handler for each capability; models are told apart by attributes"
            self._refuse(name, f"{self.handlers[name].name} serves it already", hint)
        given: dict[str, object] = {**attributes}
        wrong = [key for key, value in given.items() if not isinstance(value, str)]
        if wrong:
            self._refuse(name, f"the attribute {wrong[0]} is no text", "attributes are strings")
        # `vars`, because a bound method has lost its `self` and a function of a class has not.
        function = target.handle if is_worker else target  # type: ignore[attr-defined]
        shape = shape_of(function, drop_self=is_worker)
        self.handlers[name] = Handler(name, dict(attributes), target, is_worker, shape)

    def _refuse(self, capability: str, why: str, hint: str) -> None:
        raise UsageError(f"the handler of {capability!r}: {why}", code="handler_shape", hint=hint)
