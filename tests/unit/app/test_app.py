"""Registering handlers: what is accepted, what it is taken for, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from anyserve import App, Context
from anyserve.app.signature import Kind
from anyserve.errors import UsageError


def test_forms_of_handlers() -> None:
    app = App()

    @app.capability("a", model="x", size="s")
    async def one(ctx: Context, text: str) -> int:
        return len(text)

    @app.capability("b.c")
    async def two(number: int) -> AsyncIterator[str]:
        yield str(number)

    @app.capability("d")
    def three(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        del context

    @app.capability("e")
    def four(thing: Any, *, limit: int = 3) -> Iterator[int]:
        yield limit

    @app.worker(capability="f")
    class Five:
        async def handle(self, wanted: list[int], here: Context) -> dict[str, int]:
            return {}

    shapes = {name: handler.shape for name, handler in app.handlers.items()}
    assert {name: shape.kind for name, shape in shapes.items()} == {
        "a": Kind.ASYNC,
        "b.c": Kind.ASYNC_STREAM,
        "d": Kind.PLAIN,
        "e": Kind.PLAIN_STREAM,
        "f": Kind.ASYNC,
    }
    assert {name: (shape.context, shape.payload) for name, shape in shapes.items()} == {
        "a": ("ctx", "text"),
        "b.c": ("", "number"),
        "d": ("context", ""),
        "e": ("", "thing"),
        "f": ("here", "wanted"),
    }
    assert [shape.payload_type for shape in shapes.values()] == [str, int, Any, Any, list[int]]
    assert [shape.result_type for shape in shapes.values()] == [
        int, str, None, int, dict[str, int]
    ]  # fmt: skip
    assert app.handlers["a"].attributes == {"model": "x", "size": "s"}
    assert app.handlers["f"].is_worker
    assert app.handlers["f"].name.endswith("Five")
    assert callable(one)  # a decorator leaves what it decorates as it was
    assert list(three.__code__.co_varnames) == ["context"]
    assert list(four("x")) == [3]
    assert two.__name__ == "two"


def refused(register: Any) -> str:
    with pytest.raises(UsageError) as caught:
        register(App())
    assert caught.value.code == "handler_shape"
    assert caught.value.hint
    return caught.value.message


def test_what_is_no_handler_is_refused_when_it_is_registered() -> None:
    async def two_payloads(one: int, other: int) -> None: ...

    async def by_position(one: int, /) -> None: ...

    async def fine(one: int) -> None: ...

    class NoHandle:
        pass

    def twice(app: App) -> None:
        app.capability("a")(fine)
        app.capability("a")(fine)

    assert "takes both one and other" in refused(lambda app: app.capability("a")(two_payloads))
    assert "by position" in refused(lambda app: app.capability("a")(by_position))
    assert "no name of a capability" in refused(lambda app: app.capability("A b")(fine))
    assert "is a class" in refused(lambda app: app.capability("a")(NoHandle))
    assert "has no handle" in refused(lambda app: app.worker(capability="a")(NoHandle))
    assert "serves it already" in refused(twice)
    assert "is no text" in refused(lambda app: app.capability("a", n=3)(fine))


def test_an_annotation_that_cannot_be_read_is_named() -> None:
    async def unknown(one: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert "name 'Missing' is not defined" in refused(lambda app: app.capability("a")(unknown))
