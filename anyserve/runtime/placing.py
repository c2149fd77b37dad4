"""Where the engines of a cluster run on this machine: what is there, and who gets what of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from anyserve.core.placement import Devices, GpuInfo, Placement, plan_placement
from anyserve.core.spec import ReplicaSpec
from anyserve.errors import MissingDependencyError
from anyserve.runtime.clusters import state_dir
from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.engines.detect import VllmBuild, detect
from anyserve.runtime.gpus import Gpu, find_gpus

Look = Callable[[Mapping[str, str]], Sequence[Gpu]]
_TURNS: Final = "gpus"


def place_engines(
    replicas: Sequence[ReplicaSpec],
    environ: Mapping[str, str],
    *,
    check_memory: bool = True,
    look: Look = find_gpus,
    build: VllmBuild | None = None,
) -> Placement:
    """Plan the GPUs of all vLLM engines; empty where they run on the CPU.

    A CUDA build of vLLM needs a GPU in any case, so there engines that ask for none share evenly
    what the others leave. `check_memory` False: memory that other programs hold does not count.

    Raises:
        AnyServeError: GPUs are needed and are not there, do not fit, or vLLM cannot use them.
    """
    engines = [one for one in replicas if one.engine.kind == EngineKind.VLLM]
    asking = [one.id for one in engines if one.engine.gpus]
    on_cuda = bool(engines) and (build or detect().build) is VllmBuild.CUDA
    if not asking and not on_cuda:
        return Placement()
    gpus = [_counted(gpu.info, check_memory=check_memory) for gpu in look(environ)]
    if gpus and not on_cuda:
        raise _no_cuda_build(asking)
    return plan_placement(engines, gpus, share_rest=on_cuda)


def turn_path(devices: Devices | None, environ: Mapping[str, str]) -> Path | None:
    """The file that engines which share a GPU lock while they load; None for one that shares none.

    It is one per user and GPU: engines of several clusters take turns too.
    """
    if devices is None or devices.share >= 1:
        return None
    directory = state_dir(environ).parent / _TURNS
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory / f"{devices.indices[0]}.lock"


def _counted(gpu: GpuInfo, *, check_memory: bool) -> GpuInfo:
    return gpu if check_memory else dataclasses.replace(gpu, free_bytes=gpu.memory_bytes)


def _no_cuda_build(asking: Sequence[str]) -> MissingDependencyError:
    return MissingDependencyError(
        f"{', '.join(asking)} would run on a GPU, and there is no CUDA build of vLLM here",
        code="no_cuda_build",
        hint="install it (anyserve[gpu]), or set gpus to 0 to run on the CPU: "
        "--set 'cluster.replicas[*].engine.gpus=0'",
    )
