"""How each process of a cluster is started: its configuration, its command, its restarts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from anyserve.core.placement import Devices, Placement
from anyserve.core.spec import IngressSpec, ReplicaSpec
from anyserve.runtime.bus.address import BrokerAddress, Credential, Credentials, Role
from anyserve.runtime.engines.allocator import allocator_settings
from anyserve.runtime.handlers.words import ObjectsConfig
from anyserve.runtime.ingress.doors import has_replica_doors
from anyserve.runtime.objects.token import object_token
from anyserve.runtime.process import Incarnations, NodeConfig, NodeRole, write_private
from anyserve.runtime.supervisor.children import ChildSpec
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.home import Home
from anyserve.runtime.supervisor.restarts import RestartPolicy

Command = Callable[[NodeRole, Path], Sequence[str]]
ZYGOTE = "zygote"
INGRESS = "ingress"


def node_command(role: NodeRole, config: Path) -> Sequence[str]:
    """The command of one of our processes."""
    return (sys.executable, "-m", f"anyserve.runtime.{role.value}", str(config))


@dataclass(slots=True)
class Nodes:
    """Makes the specifications of all children of one cluster. `command` is replaced in tests."""

    config: SupervisorConfig
    home: Home
    broker: BrokerAddress
    credentials: Credentials
    boot_id: str
    incarnations: Incarnations
    placement: Placement
    command: Command = node_command
    last_incarnation: dict[str, int] = field(default_factory=dict)

    def scheduler(self) -> ChildSpec:
        """Restarted: it finds its requests again in its journal."""
        grace_s = self.config.graces.scheduler_s
        return self._node(
            "scheduler",
            NodeRole.SCHEDULER,
            "scheduler",
            grace_s,
            journal_path=str(self.home.journal),
        )

    def recorder(self) -> ChildSpec:
        """Restarted: what it misses meanwhile shows as gaps."""
        grace_s = self.config.graces.recorder_s
        return self._node("recorder", NodeRole.RECORDER, "recorder", grace_s)

    def player(self) -> ChildSpec:
        """Never restarted: its requests, and with them the run, are lost."""
        spec = self._node(
            "player",
            NodeRole.PLAYER,
            "player",
            self.config.graces.player_s,
            plan_path=self.config.plan_path,
            control_path=str(self.home.node_socket("player")),
        )
        return ChildSpec(spec.name, spec.prepare, spec.log_path, None, spec.grace_s, spec.env)

    def ingress(self, settings: IngressSpec) -> ChildSpec:
        """Restarted: its clients' requests are lost with it, new ones find it again."""
        grace_s = settings.drain_ms / 1000 + self.config.graces.ingress_s
        return self._node(
            INGRESS,
            NodeRole.INGRESS,
            INGRESS,
            grace_s,
            observer_credential=self.credentials.of(Role.OBSERVER),
        )

    def replica(self, replica: ReplicaSpec) -> ChildSpec:
        """Restarted with back-off; the zygote gives it its worker."""
        settings = self.config.cluster.ingress
        doors = settings is not None and has_replica_doors(settings)
        name = replica_name(replica.id)
        return self._node(
            name,
            NodeRole.REPLICA,
            replica.id,
            self.config.graces.replica_s,
            control_path=str(self.home.node_socket(name)),
            zygote_socket=str(self.home.zygote_socket),
            placed=True,
            devices=self.placement.of(replica.id),
            origin_credential=self._origin if doors or replica.app is not None else None,
        )

    @property
    def objects(self) -> ObjectsConfig | None:
        """The object plane of this host."""
        if self.home.objects is None:
            return None
        return ObjectsConfig(
            directory=str(self.home.objects),
            rules=self.config.cluster.objects,
            token=object_token(self._origin),
        )

    @property
    def _origin(self) -> Credential | None:
        return self.credentials.of(Role.ORIGIN)

    def zygote(self) -> ChildSpec:
        """The process that workers are forked from; vLLM is imported only where it is used."""
        command = [sys.executable, "-m", "anyserve.runtime.worker.zygote"]
        command += ["--socket", str(self.home.zygote_socket)]
        if any(replica.engine.kind == "vllm" for replica in self.config.cluster.replicas):
            command += ["--preload", "vllm"]
        env = {**allocator_settings(os.environ), "TMPDIR": str(self.home.scratch)}
        return ChildSpec(ZYGOTE, lambda: command, self.home.log(ZYGOTE), RestartPolicy(), 1.0, env)

    def _node(
        self,
        name: str,
        role: NodeRole,
        process_id: str,
        grace_s: float,
        *,
        placed: bool = False,
        devices: Devices | None = None,
        origin_credential: Credential | None = None,
        observer_credential: Credential | None = None,
        **paths: str | None,
    ) -> ChildSpec:
        def prepare() -> Sequence[str]:
            incarnation = self.incarnations.next(process_id)
            self.last_incarnation[name] = incarnation
            node = NodeConfig(
                role=role,
                id=process_id,
                cluster=self.config.cluster,
                broker=self.broker,
                credential=self.credentials.of(role.bus_role),
                prefix=f"anyserve/{self.config.cluster.name}",
                run_dir=self.config.run_dir,
                incarnation=incarnation,
                boot_id=self.boot_id,
                log_path=str(self.home.log(name)),
                placed=placed,
                devices=devices,
                origin_credential=origin_credential,
                observer_credential=observer_credential,
                objects=self.objects,
                extra=self.config.extra.get(role.value, {}),
                **paths,
            )
            write_private(self.home.config(name), msgspec.json.encode(node))
            return self.command(role, self.home.config(name))

        return ChildSpec(name, prepare, self.home.log(name), RestartPolicy(), grace_s)


def replica_name(replica_id: str) -> str:
    """What the process of a replica is called in steps, status and events."""
    return f"replica {replica_id}"
