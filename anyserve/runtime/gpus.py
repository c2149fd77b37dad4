"""The NVIDIA GPUs that this process may use, as nvidia-smi tells: no CUDA is started here."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from anyserve.core.placement import GpuInfo
from anyserve.errors import StartError

_LOG = logging.getLogger(__name__)
VISIBLE_ENV: Final = "CUDA_VISIBLE_DEVICES"
COMMAND: Final = (
    "nvidia-smi",
    "--query-gpu=index,name,memory.total,memory.free,driver_version,uuid",
    "--format=csv,noheader,nounits",
)
_COLUMNS: Final = 6
_MIB: Final = 1 << 20
_LIMIT_S: Final = 30.0
"""Without the persistence daemon the driver wakes each GPU up first, which takes seconds."""

Runner = Callable[[Sequence[str]], str | None]
"""Runs a command; its standard output, or None where it is not there or fails."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU with what people and CUDA_VISIBLE_DEVICES name it by."""

    info: GpuInfo
    driver: str
    uuid: str


def find_gpus(environ: Mapping[str, str] | None = None, run: Runner | None = None) -> list[Gpu]:
    """The GPUs, in the order of CUDA_VISIBLE_DEVICES where that is set; none where there are none.

    Raises:
        StartError: nvidia-smi says what we do not understand, or CUDA_VISIBLE_DEVICES names a
            slice of a GPU (MIG).
    """
    names = visible_names(os.environ if environ is None else environ)
    if names == ():
        return []
    said = (run or run_command)(COMMAND)
    if said is None:
        return []
    present = [_parse(line) for line in said.splitlines() if line.strip()]
    return present if names is None else _visible(present, names)


def visible_names(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES names, up to the first -1, as CUDA reads it; None: not set."""
    value = environ.get(VISIBLE_ENV)
    if value is None:
        return None
    names: list[str] = []
    for name in map(str.strip, value.split(",")):
        if name in {"", "-1"}:
            break
        names.append(name)
    return tuple(names)


def run_command(command: Sequence[str]) -> str | None:
    """Run nvidia-smi itself."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        _LOG.warning("%s: %s", command[0], error)
        return None
    if done.returncode != 0:  # mostly: there is no driver
        _LOG.info("%s: %s", command[0], (done.stdout + done.stderr).strip())
        return None
    return done.stdout


def _parse(line: str) -> Gpu:
    cells = [cell.strip() for cell in line.split(",")]
    try:
        if len(cells) != _COLUMNS:
            raise ValueError  # noqa: TRY301 - the same refusal
        index, name, total, free, driver, uuid = cells
        info = GpuInfo(int(index), int(total) * _MIB, int(free) * _MIB, name)
        if info.memory_bytes <= 0 or not 0 <= info.free_bytes <= info.memory_bytes:
            raise ValueError  # noqa: TRY301 - the same refusal
    except ValueError:
        message = f"nvidia-smi describes a GPU in a way that we do not understand: {line.strip()}"
        hint = f"hide it by {VISIBLE_ENV}, or look at: {' '.join(COMMAND)}"
        raise StartError(message, code="nvidia_smi", hint=hint) from None
    return Gpu(info, driver, uuid)


def _visible(present: Sequence[Gpu], names: Sequence[str]) -> list[Gpu]:
    found: list[Gpu] = []
    for name in names:
        gpu = _named(present, name)
        if gpu is None or gpu in found:
            break  # CUDA sees nothing from the first wrong name on
        found.append(gpu)
    return found


def _named(present: Sequence[Gpu], name: str) -> Gpu | None:
    if name.startswith("MIG-"):
        message = f"{VISIBLE_ENV} names a slice of a GPU, {name}; engines are placed on whole GPUs"
        hint = f"name the GPU in {VISIBLE_ENV}, and give shares of it by `gpus` in the scenario"
        raise StartError(message, code="gpu_slice", hint=hint)
    if name.isdecimal():
        matching = [gpu for gpu in present if gpu.info.index == int(name)]
    else:
        matching = [gpu for gpu in present if name.startswith("GPU-") and gpu.uuid.startswith(name)]
    return matching[0] if len(matching) == 1 else None
