"""`anyserve up` on GPUs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shipped import ROOT, UP_S, Run, ShippedScenarios, anyserve, up

from anyserve.runtime.gpus import Gpu

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(UP_S + 60)]
ON_ONE_GPU = ("--set", "cluster.replicas[*].engine.gpus=0.3")


class TestShippedScenariosOnGpu(ShippedScenarios):
    """Their replicas ask for no GPUs, so they share evenly what is there."""


@pytest.fixture(scope="module")
def gpu_run(tmp_path_factory: pytest.TempPathFactory, gpus: list[Gpu]) -> Run:
    more = () if len(gpus) > 1 else ON_ONE_GPU
    return up("gpu", tmp_path_factory.mktemp("gpu"), *more)


def test_shares_and_whole_gpus_serve_what_was_offered(gpu_run: Run) -> None:
    assert gpu_run.done.returncode == 0, gpu_run.done.stdout + gpu_run.done.stderr
    summary = gpu_run.summary
    assert summary["requests"]["completed"] == summary["requests"]["offered"] > 200
    assert summary["delegations"]["total"] == 48
    assert summary["machine"]["engines"] == ["vllm"]
    assert "(cuda)" in summary["machine"]["vllm"]


def test_doctor_shows_every_gpu(gpus: list[Gpu]) -> None:
    shown = anyserve("doctor", "--json", env={}, timeout_s=60)
    checks: list[dict[str, Any]] = json.loads(shown.stdout)["checks"]
    texts = {check["name"]: check["text"] for check in checks}

    for gpu in gpus:
        assert gpu.info.name in texts[f"gpu {gpu.info.index}"]
        assert gpu.driver in texts[f"gpu {gpu.info.index}"]


def test_more_than_there_is_is_refused_before_anything_starts(
    tmp_path_factory: pytest.TempPathFactory, gpus: list[Gpu]
) -> None:
    runs = tmp_path_factory.mktemp("refused")
    wish = f"cluster.replicas[h1].engine.gpus={len(gpus) + 1}"
    words = ("up", str(ROOT / "scenarios" / "gpu.yaml"), "--set", wish, "--runs", str(runs))
    done = anyserve(*words, env={}, timeout_s=120)

    assert done.returncode == 3
    assert "error[gpu_memory]" in done.stderr
    assert f"h1 {len(gpus) + 1}" in done.stderr
