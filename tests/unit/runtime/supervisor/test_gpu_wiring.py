"""The plan of the GPUs comes before everything else, and each replica is told its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from anyserve.core.messages import Offer
from anyserve.core.placement import Devices, Placement
from anyserve.core.spec import ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.errors import MissingDependencyError, StartError
from anyserve.runtime.bus.address import BrokerAddress, Credentials
from anyserve.runtime.clusters import ClusterStore
from anyserve.runtime.process import Incarnations, NodeConfig, load_config
from anyserve.runtime.replica.process import devices_of
from anyserve.runtime.supervisor.cluster import Cluster
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.home import Home
from anyserve.runtime.supervisor.nodes import Nodes
from anyserve.runtime.supervisor.progress import AnyProgress

HALF = Devices(indices=(1,), share=0.5, memory_share=0.45)


def replica(name: str, gpus: float) -> ReplicaSpec:
    engine = EngineSpec(kind="vllm", gpus=gpus)
    return ReplicaSpec(id=name, offers=(Offer(capability="decode"),), engine=engine)


def supervisor_config(run_dir: Path) -> SupervisorConfig:
    replicas = (replica("s1", 0.5), replica("c1", 0))
    cluster = ClusterSpec(name="gpus", capabilities=(), replicas=replicas)
    return SupervisorConfig(cluster=cluster, run_dir=str(run_dir))


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(
        supervisor_config(tmp_path),
        Home(tmp_path, tmp_path / "run"),
        BrokerAddress("127.0.0.1", 1883),
        Credentials({}),
        "boot",
        Incarnations(),
        Placement({"s1": HALF}),
    )


def started(nodes: Nodes, name: str) -> NodeConfig:
    """What a replica reads when it is started."""
    spec = next(one for one in nodes.config.cluster.replicas if one.id == name)
    *_, path = nodes.replica(spec).prepare()
    return load_config(Path(path))


def test_a_replica_finds_its_devices_in_its_configuration_in_every_life(nodes: Nodes) -> None:
    for _life in range(2):
        config = started(nodes, "s1")
        assert (config.placed, config.devices) == (True, HALF)
        assert devices_of(config, nodes.config.cluster.replicas[0]) == HALF


def test_a_replica_without_gpus_is_told_so_and_looks_for_none(nodes: Nodes) -> None:
    config = started(nodes, "c1")

    assert (config.placed, config.devices) == (True, None)
    assert devices_of(config, nodes.config.cluster.replicas[1]) is None


def test_a_replica_that_nobody_planned_for_plans_for_itself(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = NodeConfig(
        role=started(nodes, "s1").role,
        id="s1",
        cluster=nodes.config.cluster,
        broker=nodes.broker,
        credential=None,
        prefix="anyserve/gpus",
        run_dir="",
        incarnation=1,
        boot_id="boot",
    )

    with pytest.raises(MissingDependencyError, match="s1 needs a GPU"):
        devices_of(config, nodes.config.cluster.replicas[0])


@pytest.mark.parametrize("override", ["0", "1"])
async def test_what_does_not_fit_stops_the_start_before_its_first_step(
    tmp_path: Path, override: str
) -> None:
    asked: list[tuple[list[str], bool]] = []
    said: list[AnyProgress] = []

    def refuse(
        replicas: Sequence[ReplicaSpec], environ: Mapping[str, str], *, check_memory: bool
    ) -> Placement:
        asked.append(([one.id for one in replicas], check_memory))
        raise StartError("not enough GPU memory", code="gpu_memory")

    environ: dict[str, Any] = {"ANYSERVE_MEMORY_CHECK": override}
    cluster = Cluster(
        supervisor_config(tmp_path / "run"),
        said.append,
        store=ClusterStore(tmp_path / "clusters"),
        environ=environ,
        place=refuse,
    )

    with pytest.raises(StartError, match="not enough GPU memory"):
        await cluster.start_broker()
    await cluster.tear_down()

    assert asked == [(["s1", "c1"], override == "1")]
    assert said == []
    assert not (tmp_path / "clusters").exists()
