"""From replicas and the machine to the devices of each; nvidia-smi and the build are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from anyserve.core.messages import Offer
from anyserve.core.placement import Devices, GpuInfo, Placement
from anyserve.core.spec import EngineSpec, ReplicaSpec
from anyserve.errors import MissingDependencyError, StartError
from anyserve.runtime.engines.detect import VllmBuild
from anyserve.runtime.gpus import Gpu
from anyserve.runtime.placing import place_engines, turn_path

GIB = 1 << 30
ONE = [Gpu(GpuInfo(0, 24 * GIB, 23 * GIB, "NVIDIA A10"), "580.1", "GPU-1")]
BUSY = [Gpu(GpuInfo(0, 24 * GIB, 2 * GIB, "NVIDIA A10"), "580.1", "GPU-1")]


def replica(name: str, **engine: Any) -> ReplicaSpec:
    return ReplicaSpec(id=name, offers=(Offer(capability="decode"),), engine=EngineSpec(**engine))


def place(*replicas: ReplicaSpec, gpus: list[Gpu], build: VllmBuild, **options: Any) -> Placement:
    return place_engines(replicas, {}, look=lambda _environ: gpus, build=build, **options)


def test_engines_on_the_cpu_need_no_plan_and_nobody_is_asked() -> None:
    def never(_environ: Mapping[str, str]) -> list[Gpu]:
        pytest.fail("there is no need to look for GPUs")

    replicas = [replica("s1"), replica("m1", kind="model", gpus=1), replica("e1", kind="echo")]
    assert place_engines(replicas, {}, look=never, build=VllmBuild.CPU) == Placement()
    assert place_engines(replicas[1:], {}, look=never, build=VllmBuild.CUDA) == Placement()


def test_a_cuda_build_shares_the_gpus_without_being_asked() -> None:
    placed = place(replica("s1"), replica("s2"), gpus=ONE, build=VllmBuild.CUDA)

    assert {name: one.share for name, one in placed.devices.items()} == {"s1": 0.5, "s2": 0.5}


def test_gpus_are_asked_for_and_none_is_there() -> None:
    for build in VllmBuild:
        with pytest.raises(MissingDependencyError, match="s1 needs a GPU"):
            place(replica("s1", gpus=0.5), gpus=[], build=build)
    with pytest.raises(MissingDependencyError, match="s1 needs a GPU"):
        place(replica("s1"), gpus=[], build=VllmBuild.CUDA)


def test_gpus_are_there_and_vllm_cannot_use_them() -> None:
    with pytest.raises(MissingDependencyError, match="no CUDA build of vLLM") as refused:
        place(replica("s1", gpus=1), gpus=ONE, build=VllmBuild.CPU)
    assert refused.value.code == "no_cuda_build"


def test_memory_that_others_hold_counts_unless_told_otherwise() -> None:
    wanted = replica("h1", gpus=1)
    with pytest.raises(StartError, match="not enough GPU memory"):
        place(wanted, gpus=BUSY, build=VllmBuild.CUDA)
    placed = place(wanted, gpus=BUSY, build=VllmBuild.CUDA, check_memory=False)
    assert placed.of("h1") == Devices(indices=(0,), share=1.0, memory_share=0.9)


def test_those_who_share_a_gpu_have_one_file_to_wait_at(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    half = Devices(indices=(3,), share=0.5, memory_share=0.45)

    path = turn_path(half, environ)
    assert path == tmp_path / "anyserve" / "gpus" / "3.lock"
    assert path.parent.is_dir()
    assert turn_path(Devices(indices=(3,), share=1.0, memory_share=0.9), environ) is None
    assert turn_path(None, environ) is None
