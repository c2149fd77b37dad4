"""A cluster that needs GPUs, on a machine that shows none: refused by the real supervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyserve.core.messages import Offer
from anyserve.core.spec import ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.foreground import SupervisorProcess
from anyserve.runtime.supervisor.progress import Exit


async def test_gpus_that_are_not_there_end_the_start_with_nothing_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    engine = EngineSpec(kind="vllm", model="smollm2-135m", gpus=0.5)
    replicas = tuple(
        ReplicaSpec(id=name, offers=(Offer(capability="decode"),), engine=engine)
        for name in ("s1", "s2")
    )
    cluster = ClusterSpec(name="no-gpus", capabilities=(), replicas=replicas)
    config = SupervisorConfig(cluster=cluster, run_dir=str(tmp_path / "run"), check_memory=False)

    process = await SupervisorProcess.launch(config)
    lines = [line async for line in process.progress()]

    (last,) = lines
    assert isinstance(last, Exit)
    assert last.error is not None
    assert (last.code, last.error.code) == (5, "no_gpu")
    assert "s1, s2 need GPUs" in last.error.message
    assert "nvidia" in last.error.hint.lower()
