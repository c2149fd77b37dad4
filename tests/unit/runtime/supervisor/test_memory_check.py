from __future__ import annotations

from pathlib import Path

import pytest

from anyserve.core.messages import Offer
from anyserve.core.spec import ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.errors import StartError
from anyserve.runtime.engines.detect import VllmBuild
from anyserve.runtime.supervisor.memory import available_gib, check_memory, needed_gib


def cluster(**engines: EngineSpec) -> ClusterSpec:
    replicas = tuple(
        ReplicaSpec(id=name, offers=(Offer(capability="decode"),), engine=engine)
        for name, engine in engines.items()
    )
    return ClusterSpec(name="c", capabilities=(), replicas=replicas)


def test_too_little_memory_is_refused_with_the_arithmetic() -> None:
    wanted = cluster(s1=EngineSpec(kv_cache_gib=1.0), h1=EngineSpec(kv_cache_gib=2.5))
    check_memory(wanted, 5.5)
    with pytest.raises(StartError) as refused:
        check_memory(wanted, 5.4)
    assert "s1 2.0 + h1 3.5 = 5.5 GiB needed, 5.4 GiB available" in refused.value.message
    assert "ANYSERVE_MEMORY_CHECK=0" in refused.value.hint


def test_engines_without_host_memory_need_none() -> None:
    check_memory(cluster(m=EngineSpec(kind="model"), g=EngineSpec(gpus=1.0)), 0.0)


def test_a_cuda_build_keeps_its_caches_on_gpus() -> None:
    wanted = cluster(s1=EngineSpec(), h1=EngineSpec(gpus=0.5))
    assert needed_gib(wanted, VllmBuild.CPU) == {"s1": 2.0}
    assert needed_gib(wanted, VllmBuild.CUDA) == {}


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{2 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    assert available_gib(tmp_path) <= 1.0
    (tmp_path / "memory.max").write_text("max\n")
    assert available_gib(tmp_path) > 0
