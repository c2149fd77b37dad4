"""Writes a safetensors file tensor by tensor, in bfloat16, which numpy does not know.

The format: eight bytes of header length, a JSON header, the tensors one after the other. Writing
it here keeps torch out and holds one tensor in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
_ALIGN = 8
_BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape of a tensor, known before its data is."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the tensor in bfloat16."""
        return int(np.prod(self.shape, dtype=np.int64)) * _BF16_BYTES


def to_bfloat16(values: Float32Array) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16 (to nearest, ties to even), as 16-bit patterns."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_bfloat16(
    path: Path, specs: Sequence[TensorSpec], tensors: Iterable[Float32Array]
) -> None:
    """Write `tensors`, which come in the order of `specs`, as one bfloat16 safetensors file.

    Raises:
        ValueError: A tensor does not have the shape its spec names.
    """
    with path.open("wb") as file:
        file.write(_header(specs))
        for spec, values in zip(specs, tensors, strict=True):
            if values.shape != spec.shape:
                raise ValueError(f"{spec.name}: shape {values.shape}, expected {spec.shape}")
            file.write(to_bfloat16(values).tobytes())


def _header(specs: Sequence[TensorSpec]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        end = offset + spec.nbytes
        header[spec.name] = {
            "dtype": "BF16",
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGN)
    return len(text).to_bytes(8, "little") + text
