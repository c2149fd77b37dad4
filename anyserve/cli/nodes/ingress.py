"""`anyserve ingress`: one more front door for a cluster that runs, here or elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec

from anyserve.cli.modelling import prepare as prepare_model
from anyserve.cli.nodes.app_replica import running_cluster
from anyserve.cli.nodes.single import NodeOptions, join, node_config, run_process
from anyserve.cli.session import Session
from anyserve.core.spec import ClusterSpec, IngressSpec
from anyserve.errors import UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.process import NodeRole


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorOptions:
    """Where to listen; None: as the scenario says."""

    host: str | None = None
    http: int | None = None
    grpc: int | None = None


def run_ingress(session: Session, options: NodeOptions, doors: DoorOptions) -> int:
    """Serve until Ctrl-C; answers that are under way may end. Its addresses go to stdout.

    Raises:
        AnyServeError: no cluster is found, or it cannot be opened.
    """
    if options.scenario is None:
        named = (options.broker, options.credentials, options.cluster)
        joining, cluster = running_cluster(session, *named)
    else:
        joining, cluster = join(session, options)
    cluster = msgspec.structs.replace(cluster, ingress=_settings(cluster, doors))
    for model in sorted(_models(cluster)):
        prepare_model(model, session.diagnostics)
    config = node_config(
        NodeRole.INGRESS,
        f"ingress-{os.getpid()}",
        joining,
        cluster,
        run_dir=session.cwd,
    )
    observer = joining.credentials.of(Role.OBSERVER)
    config = msgspec.structs.replace(config, observer_credential=observer)
    return run_process(config, session.diagnostics)


def _settings(cluster: ClusterSpec, doors: DoorOptions) -> IngressSpec:
    settings = cluster.ingress or IngressSpec()
    if doors.host is not None:
        settings = msgspec.structs.replace(settings, host=doors.host)
    if doors.http is not None:
        settings = msgspec.structs.replace(settings, http_port=doors.http)
    elif doors.grpc is not None:
        settings = msgspec.structs.replace(settings, http_port=None)
    if doors.grpc is not None:
        settings = msgspec.structs.replace(settings, grpc_port=doors.grpc)
    if settings.http_port is None and settings.grpc_port is None:
        hint = "--http PORT, --grpc PORT, or both"
        raise UsageError("no door is to be opened", code="usage", hint=hint)
    return settings


def _models(cluster: ClusterSpec) -> set[str]:
    """The models whose tokenizers are needed."""
    return {
        replica.engine.model
        for replica in cluster.replicas
        if replica.engine.kind == "vllm" and replica.engine.model is not None
    }
