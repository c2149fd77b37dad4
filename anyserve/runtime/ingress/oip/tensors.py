"""Tensors of the protocol: reading what clients send, in either of its two forms, and writing.

Contents come typed (`contents.bytes_contents` ...) or raw (`raw_input_contents`, little-endian;
BYTES elements each with their length in four bytes before them). Answers are raw where the
request was: that is what every client reads.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from anyserve.runtime.ingress.meanings import RefusedError, invalid
from anyserve.runtime.ingress.oip import inference_pb2 as pb

BYTES: Final = "BYTES"
MAX_ELEMENTS: Final = 2**24
_INTEGERS: Final = {
    "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I",
    "INT64": "q", "UINT64": "Q",
}  # fmt: skip
_TYPED: Final = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    BYTES: "bytes_contents",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input as plain values: texts for BYTES, bools for BOOL, else whole numbers."""

    name: str
    datatype: str
    values: Sequence[bytes] | Sequence[bool] | Sequence[int]

    def text(self) -> str:
        """Its one text.

        Raises:
            RefusedError: it holds another number of elements, or no text.
        """
        if self.datatype != BYTES or len(self.values) != 1:
            count = len(self.values)
            raise invalid(
                f"'{self.name}' holds {count} {self.datatype}; one BYTES element is expected",
                self.name,
            )
        value = self.values[0]
        assert isinstance(value, bytes)
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise invalid(f"'{self.name}' is not UTF-8", self.name) from None

    def flag(self) -> bool:
        """Its one truth value.

        Raises:
            RefusedError: it holds something else.
        """
        if self.datatype != "BOOL" or len(self.values) != 1:
            raise invalid(f"'{self.name}' must be one BOOL", self.name)
        return bool(self.values[0])

    def integers(self) -> list[int]:
        """Its whole numbers.

        Raises:
            RefusedError: it holds something else.
        """
        if self.datatype not in _INTEGERS:
            raise invalid(f"'{self.name}' must hold whole numbers (INT64)", self.name)
        return [int(value) for value in self.values]


def read_tensors(request: pb.ModelInferRequest) -> dict[str, Tensor]:
    """The inputs of a request by name.

    Raises:
        RefusedError: an input stands twice, is of a type that no model here takes, or its contents
            do not fit its shape.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        text = f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs"
        raise invalid(text, "raw_input_contents")
    found: dict[str, Tensor] = {}
    for index, given in enumerate(request.inputs):
        if given.name in found:
            raise invalid(f"the input '{given.name}' stands twice", given.name)
        found[given.name] = _read(given, raw[index] if raw else None)
    return found


def _read(given: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    if "shared_memory_region" in given.parameters:
        text = f"'{given.name}' is in shared memory, which is not supported here"
        raise RefusedError(text, code="unsupported_parameter", param=given.name)
    if given.datatype not in _TYPED:
        text = f"'{given.name}' is of type {given.datatype[:20]}; no model here takes it"
        raise invalid(text, given.name)
    count = _elements(given)
    if raw is None:
        values = list(getattr(given.contents, _TYPED[given.datatype]))
    else:
        if given.HasField("contents"):
            raise invalid(f"'{given.name}' has typed and raw contents", given.name)
        values = _decode(given.name, given.datatype, raw, count)
    if len(values) != count:
        text = f"'{given.name}' has {len(values)} elements, its shape says {count}"
        raise invalid(text, given.name)
    return Tensor(given.name, given.datatype, values)


def _elements(given: pb.ModelInferRequest.InferInputTensor) -> int:
    if not given.shape or any(size < 0 for size in given.shape):
        raise invalid(f"'{given.name}' has no whole shape", given.name)
    count = prod(given.shape)
    if count > MAX_ELEMENTS:
        raise invalid(f"'{given.name}' has {count} elements, too many", given.name)
    return count


def _decode(
    name: str, datatype: str, raw: bytes, count: int
) -> list[bytes] | list[bool] | list[int]:
    if datatype == BYTES:
        return _decode_bytes(name, raw)
    if datatype == "BOOL":
        return [bool(value) for value in raw]
    numbers = array(_INTEGERS[datatype])
    if len(raw) != count * numbers.itemsize:
        text = f"'{name}' has {len(raw)} bytes, its shape says {count * numbers.itemsize}"
        raise invalid(text, name)
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _decode_bytes(name: str, raw: bytes) -> list[bytes]:
    values, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise invalid(f"'{name}' ends within a length", name)
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise invalid(f"'{name}' ends within an element", name)
        values.append(raw[at : at + length])
        at += length
    return values


class Outputs:
    """Adds output tensors to a response: raw, or typed where the request was."""

    def __init__(self, response: pb.ModelInferResponse, *, raw: bool) -> None:
        self._response = response
        self._raw = raw

    def texts(self, name: str, values: Sequence[str]) -> None:
        """A BYTES tensor of UTF-8."""
        self.binary(name, [value.encode("utf-8", "replace") for value in values])

    def binary(self, name: str, encoded: Sequence[bytes]) -> None:
        """A BYTES tensor."""
        tensor = self._response.outputs.add(name=name, datatype=BYTES, shape=[len(encoded)])
        if self._raw:
            packed = b"".join(struct.pack("<I", len(one)) + one for one in encoded)
            self._response.raw_output_contents.append(packed)
        else:
            tensor.contents.bytes_contents.extend(encoded)

    def integers(self, name: str, values: Sequence[int]) -> None:
        """An INT64 tensor."""
        tensor = self._response.outputs.add(name=name, datatype="INT64", shape=[len(values)])
        if self._raw:
            self._response.raw_output_contents.append(_packed("q", values))
        else:
            tensor.contents.int64_contents.extend(values)

    def floats(self, name: str, values: Sequence[float]) -> None:
        """An FP32 tensor."""
        tensor = self._response.outputs.add(name=name, datatype="FP32", shape=[len(values)])
        if self._raw:
            self._response.raw_output_contents.append(_packed("f", values))
        else:
            tensor.contents.fp32_contents.extend(values)


def _packed(code: str, values: Sequence[float]) -> bytes:
    numbers = array(code, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
