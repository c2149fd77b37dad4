"""A replica that runs an app, started by hand: `anyserve replica --app module:app`.

Without a scenario it joins a cluster that runs already, here or elsewhere, and registers every
capability of its app. The scheduler learns of them by the registration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from anyserve.cli.finish import read_resolved
from anyserve.cli.session import Session
from anyserve.core.messages import Offer
from anyserve.core.spec import AppSpec, CapabilitySpec, ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.errors import UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.handlers.offers import try_apps
from anyserve.runtime.handlers.trial import AppFacts, try_app
from anyserve.runtime.handlers.words import ObjectsConfig
from anyserve.runtime.join import Joining, join_by
from anyserve.runtime.lifeline import Lifeline
from anyserve.runtime.objects.directory import new_object_directory, remove_object_directory
from anyserve.runtime.objects.token import object_token
from anyserve.telemetry.runs import RunDirectory

CONCURRENCY: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """Which app, and how it is run."""

    name: str | None = None
    replica_id: str | None = None
    concurrency: int | None = None
    reload: bool = False


def join_running(
    session: Session,
    app: AppOptions,
    broker: str | None,
    credentials: Path | None,
    cluster_name: str | None,
) -> tuple[Joining, ClusterSpec, str]:
    """The cluster that runs, with one more replica: where to connect, its rules, the replica's id.

    Raises:
        AnyServeError: no cluster is found, the id is taken, or the app cannot be used.
    """
    assert app.name is not None
    joining, cluster = running_cluster(session, broker, credentials, cluster_name)
    facts = asyncio.run(try_app(app.name, str(session.cwd), ()))
    session.diagnostics.say(f"app {app.name} from {facts.origin}")
    replica = _replica(app, facts)
    if any(one.id == replica.id for one in cluster.replicas):
        hint = "choose another one with --id"
        message = f"{cluster.name} has a replica {replica.id} already"
        raise UsageError(message, code="replica_exists", hint=hint)
    known = {one.name for one in cluster.capabilities}
    new = [offer.capability for offer in replica.offers if offer.capability not in known]
    capabilities = (*cluster.capabilities, *(CapabilitySpec(name=name) for name in new))
    replicas = (*cluster.replicas, replica)
    changed = msgspec.structs.replace(cluster, capabilities=capabilities, replicas=replicas)
    return joining, changed, replica.id


def running_cluster(
    session: Session, broker: str | None, credentials: Path | None, name: str | None
) -> tuple[Joining, ClusterSpec]:
    """The cluster that is named, by its broker or its file; else the newest of this machine.

    Raises:
        AnyServeError: there is none, or its name is not known.
    """
    if broker is None and credentials is None and not _names_broker(session):
        record = ClusterStore(state_dir(session.environ)).find(name)
        joining = Joining(record.broker, record.role_credentials(), record.name)
        return joining, rules_of(record)
    joining = join_by(broker, credentials, session.environ)
    wanted = name or joining.cluster
    if wanted is None:
        hint = "--cluster NAME, or a credentials file"
        raise UsageError("the cluster's name is not known", code="no_cluster", hint=hint)
    record_here = next((one for one in _records(session) if one.broker == joining.broker), None)
    if record_here is not None:
        return joining, rules_of(record_here)
    session.diagnostics.say(
        f"the rules of {wanted} are taken to be the defaults; a scenario file would tell them"
    )
    return joining, ClusterSpec(name=wanted, capabilities=(), replicas=())


def rules_of(record: ClusterRecord) -> ClusterSpec:
    """What a running cluster was started with."""
    cluster = read_resolved(RunDirectory(Path(record.run_dir))).cluster
    return cluster or ClusterSpec(name=record.name, capabilities=(), replicas=())


def _names_broker(session: Session) -> bool:
    return any(
        name in session.environ for name in ("ANYSERVE_BROKER_URL", "ANYSERVE_CREDENTIALS_FILE")
    )


def _records(session: Session) -> list[ClusterRecord]:
    return ClusterStore(state_dir(session.environ)).list()


def _replica(app: AppOptions, facts: AppFacts) -> ReplicaSpec:
    assert app.name is not None
    module = app.name.partition(":")[0].rpartition(".")[2]
    offers = tuple(
        Offer(capability=one.capability, attributes=one.attributes) for one in facts.serves
    )
    return ReplicaSpec(
        id=app.replica_id or module.replace("_", "-").strip("-").lower()[:32],
        offers=offers,
        engine=EngineSpec(kind="none"),
        concurrency=app.concurrency or CONCURRENCY,
        app=AppSpec(name=app.name, serves=tuple(offer.capability for offer in offers)),
    )


def with_app(
    session: Session, cluster: ClusterSpec, replica_id: str, app: AppOptions, directory: str
) -> ClusterSpec:
    """The scenario's cluster with its apps tried; `app` may replace that of the one replica.

    Raises:
        PluginError: an app cannot be used.
    """
    replicas = tuple(
        _changed(one, app) if one.id == replica_id else msgspec.structs.replace(one, app=None)
        for one in cluster.replicas
    )
    alone = msgspec.structs.replace(cluster, replicas=replicas)
    tried, facts = asyncio.run(try_apps(alone, directory))
    for name, one in facts.items():
        session.diagnostics.say(f"app {name} from {one.origin}")
    # The others' apps are theirs to try, but a call must know that handlers answer there.
    kept = {one.id: one for one in cluster.replicas}
    mine = {one.id: one for one in tried.replicas if one.id == replica_id}
    return msgspec.structs.replace(cluster, replicas=tuple({**kept, **mine}.values()))


def _changed(replica: ReplicaSpec, app: AppOptions) -> ReplicaSpec:
    changes: dict[str, Any] = {}
    if app.name is not None:
        serves = tuple(offer.capability for offer in replica.offers)
        if replica.app is not None:
            serves = replica.app.serves
        changes["app"] = AppSpec(name=app.name, serves=serves)
        if len(serves) == len(replica.offers):
            changes["engine"] = EngineSpec(kind="none")
    if app.concurrency is not None:
        changes["concurrency"] = app.concurrency
    return msgspec.structs.replace(replica, **changes)


@contextlib.contextmanager
def object_plane(
    session: Session, joining: Joining, cluster: ClusterSpec
) -> Iterator[ObjectsConfig]:
    """The object plane of this host: the running cluster's, else one for this replica alone."""
    token = object_token(joining.credentials.of(Role.ORIGIN))
    here = next((one for one in _records(session) if one.broker == joining.broker), None)
    if here is not None and here.objects and Path(here.objects).is_dir():
        yield ObjectsConfig(directory=here.objects, rules=cluster.objects, token=token)
        return
    directory = new_object_directory()
    with Lifeline() as lifeline:
        guard = _guarded(directory, lifeline)
        try:
            yield ObjectsConfig(directory=str(directory), rules=cluster.objects, token=token)
        finally:
            lifeline.close()
            guard.wait()
            remove_object_directory(directory)


def _guarded(directory: Path, lifeline: Lifeline) -> subprocess.Popen[bytes]:
    """Removes the directory when we are gone, even by `kill -9`."""
    command = [sys.executable, "-m", "anyserve.runtime.broker.guard", str(directory), "true"]
    return subprocess.Popen(
        command,
        pass_fds=lifeline.pass_fds,
        env={**os.environ, **lifeline.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
