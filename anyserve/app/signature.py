"""What a handler takes and gives, read from its signature once, when it is registered."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from anyserve.app.context import Context
from anyserve.errors import UsageError

_CONTEXT_NAMES = frozenset({"ctx", "context"})
_STREAMS = frozenset(
    {
        collections.abc.AsyncIterator,
        collections.abc.AsyncGenerator,
        collections.abc.AsyncIterable,
        collections.abc.Iterator,
        collections.abc.Generator,
        collections.abc.Iterable,
    }
)


class Kind(Enum):
    """How a handler is run."""

    ASYNC = "async"
    ASYNC_STREAM = "async stream"
    PLAIN = "plain"
    PLAIN_STREAM = "plain stream"

    @property
    def streams(self) -> bool:
        """Whether it answers piece by piece."""
        return self in (Kind.ASYNC_STREAM, Kind.PLAIN_STREAM)


@dataclass(frozen=True, slots=True)
class Shape:
    """`context` and `payload` are parameter names; "" where the handler takes none. `payload_type`
    and `result_type` (of each item, where it streams) are `Any` where nothing was said."""

    kind: Kind
    context: str = ""
    payload: str = ""
    payload_type: Any = Any
    result_type: Any = Any


def shape_of(function: Callable[..., Any], *, drop_self: bool = False) -> Shape:
    """Read a signature.

    Raises:
        UsageError: more than a payload and a context is asked for, or an annotation names what the
            module does not have.
    """
    parameters = list(inspect.signature(function).parameters.values())[1 if drop_self else 0 :]
    hints = _hints(function)
    context = payload = ""
    for parameter in parameters:
        if _optional(parameter):
            continue
        if hints.get(parameter.name) is Context or (
            parameter.name in _CONTEXT_NAMES and parameter.name not in hints
        ):
            context = parameter.name
        elif payload:
            raise _refused(function, f"it takes both {payload} and {parameter.name}")
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise _refused(function, f"{parameter.name} can only be given by position")
        else:
            payload = parameter.name
    kind = _kind(function)
    return Shape(
        kind, context, payload, hints.get(payload, Any), _result(hints.get("return", Any), kind)
    )


def _optional(parameter: inspect.Parameter) -> bool:
    loose = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return loose or parameter.default is not parameter.empty


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise _refused(function, f"an annotation cannot be read: {error}") from None


def _kind(function: Callable[..., Any]) -> Kind:
    if inspect.isasyncgenfunction(function):
        return Kind.ASYNC_STREAM
    if inspect.isgeneratorfunction(function):
        return Kind.PLAIN_STREAM
    return Kind.ASYNC if inspect.iscoroutinefunction(function) else Kind.PLAIN


def _result(annotation: Any, kind: Kind) -> Any:
    if annotation is None or annotation is type(None):
        return Any if kind.streams else None
    if not kind.streams:
        return annotation
    if get_origin(annotation) in _STREAMS:
        return (get_args(annotation) or (Any,))[0]
    return Any


def _refused(function: Callable[..., Any], why: str) -> UsageError:
    name = getattr(function, "__qualname__", repr(function))
    hint = "a handler takes a payload, a Context, or both; further parameters need a default"
    return UsageError(f"{name}: {why}", code="handler_shape", hint=hint)
