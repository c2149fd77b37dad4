"""Values to bytes and back: bytes, arrays, text, JSON. An array is its raw memory, no pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from anyserve.app import typed
from anyserve.core.objects import ObjRef
from anyserve.errors import InvalidRequestError, ObjectError

BYTES: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
ARRAY: Final = "application/x-anyserve-array"
_KINDS: Final = frozenset("biufcSUmM?")
"""numpy's kinds whose memory says all: no objects, no records, no raw voids."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A value as one run of bytes, and what it is. `data` may be the value's own memory."""

    data: memoryview
    content_type: str
    dtype: str = ""
    shape: tuple[int, ...] = ()


def pack(value: Any, content_type: str | None = None) -> Packed:
    """The value's bytes; copies nothing where its memory is in one piece.

    Raises:
        InvalidRequestError: an array of Python objects or records, or a value without JSON.
    """
    if isinstance(value, str):
        return Packed(memoryview(value.encode()), content_type or TEXT)
    if hasattr(value, "__array_interface__") and hasattr(value, "dtype"):
        return _pack_array(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        view = memoryview(value)
        flat = view.cast("B") if view.contiguous else memoryview(view.tobytes())
        return Packed(flat, content_type or BYTES)
    return Packed(memoryview(typed.encode(value)), content_type or JSON)


def _pack_array(value: Any) -> Packed:
    import numpy as np  # noqa: PLC0415 - only those who have arrays need it

    array = np.asarray(value)
    if array.dtype.kind not in _KINDS or array.dtype.hasobject:
        raise InvalidRequestError(
            f"an array of {array.dtype} cannot be kept: its memory does not say what it holds",
            hint="numbers, booleans, times and fixed-length texts can",
        )
    whole = np.ascontiguousarray(array)
    # The buffer protocol: numpy's types do not say that arrays have it before Python 3.12.
    flat: Any = whole.reshape(-1).view(np.uint8) if whole.size else b""
    data = memoryview(flat)
    return Packed(data, ARRAY, array.dtype.str, array.shape)


def unpack(ref: ObjRef, data: memoryview) -> Any:
    """The value; bytes and arrays are views of `data`.

    Raises:
        ObjectError: the bytes are not what the reference says.
    """
    if ref.content_type == ARRAY:
        return _unpack_array(ref, data)
    if ref.content_type == JSON:
        return typed.decode(data, Any)
    return str(data, "utf-8") if ref.content_type == TEXT else data


def _unpack_array(ref: ObjRef, data: memoryview) -> Any:
    import numpy as np  # noqa: PLC0415

    try:
        dtype = np.dtype(ref.dtype)
        if dtype.kind not in _KINDS:
            raise TypeError(ref.dtype)  # noqa: TRY301 - one answer to all misfits
        return np.frombuffer(data, dtype=dtype).reshape(ref.shape)
    except (TypeError, ValueError) as error:
        message = f"the object is no array of {ref.dtype}: {error}"
        raise ObjectError(message, code="object_damaged") from None
