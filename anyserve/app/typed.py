"""JSON to what a handler's annotation says, and its results back. pydantic only if a model is one.

Never pickle: what cannot be said in JSON travels as an object (`Context.objects`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from anyserve.errors import InvalidRequestError


def decode(data: bytes | memoryview | msgspec.Raw, wanted: Any) -> Any:
    """Read JSON as `wanted`: a msgspec struct, dataclass, pydantic model, or a plain type.

    Raises:
        InvalidRequestError: it is not that; names the place.
    """
    if _is_model(wanted):
        return _decode_model(bytes(data), wanted)
    try:
        return msgspec.json.decode(data, type=wanted)
    except msgspec.ValidationError as error:
        message, pointer = _place(str(error))
        raise InvalidRequestError(message, pointer=pointer) from None
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"not JSON: {error}") from None


def encode(value: Any) -> bytes:
    """Any value that JSON can say.

    Raises:
        InvalidRequestError: it cannot (an array: put it into the object plane).
    """
    try:
        return msgspec.json.encode(value, enc_hook=_other)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequestError(
            f"a value of type {type(value).__name__} cannot be said in JSON: {error}",
            hint="arrays and bytes: return a reference made by ctx.objects.put",
        ) from None


def check_result(value: Any, wanted: Any) -> None:
    """Hold a handler's result against its own annotation.

    Raises:
        TypeError: it promised something else.
    """
    if wanted is Any or _is_model(wanted):
        fits = wanted is Any or isinstance(value, wanted)
    elif wanted is None:
        fits = value is None
    elif isinstance(wanted, type):
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    else:
        fits = _converts(value, wanted)
    if not fits:
        said = getattr(wanted, "__name__", None) or str(wanted)
        raise TypeError(f"the handler gave {type(value).__name__}, its annotation says {said}")


def _converts(value: Any, wanted: Any) -> bool:
    try:
        msgspec.json.decode(msgspec.json.encode(value, enc_hook=_other), type=wanted)
    except msgspec.ValidationError:
        return False
    except TypeError:  # an annotation that msgspec does not know says nothing
        return True
    return True


def _is_model(wanted: Any) -> bool:
    # A pydantic model can only be here if pydantic was imported to define it.
    pydantic = sys.modules.get("pydantic")
    return (
        pydantic is not None and isinstance(wanted, type) and issubclass(wanted, pydantic.BaseModel)
    )


def _decode_model(data: bytes, wanted: Any) -> Any:
    try:
        return wanted.model_validate_json(data)
    except sys.modules["pydantic"].ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRequestError(first["msg"], pointer=_pointer(first["loc"])) from None


def _pointer(loc: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)


def _place(said: str) -> tuple[str, str]:
    """Msgspec says `Expected ... - at `$.documents[2]``: the message, and the place."""
    message, found, place = said.rpartition(" - at ")
    return (message, place.strip("`")) if found else (said, "$")


def _other(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    # numpy's numbers, without numpy being needed here.
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    raise TypeError(f"no JSON for {type(value).__name__}")
