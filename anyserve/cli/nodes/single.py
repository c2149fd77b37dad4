"""`anyserve scheduler` and `anyserve replica`: one process that joins a cluster by its broker."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from anyserve.cli.diagnostics import Diagnostics, ExitCode
from anyserve.cli.modelling import prepare as prepare_model
from anyserve.cli.nodes.app_replica import (
    AppOptions,
    join_running,
    object_plane,
    with_app,
)
from anyserve.cli.session import Session
from anyserve.core.spec import ClusterSpec
from anyserve.errors import UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.clusters import state_dir
from anyserve.runtime.engines.detect import detect
from anyserve.runtime.join import SECRET_ENV, Joining, join_by
from anyserve.runtime.lifeline import Lifeline
from anyserve.runtime.process import Incarnations, NodeConfig, NodeRole, boot_id, write_private
from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import load_scenario
from anyserve.workload.problems import nearest

SCHEDULER_ID: Final = "scheduler"
_CODES: Final = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
}


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Which scenario, and which broker."""

    scenario: Path | None
    broker: str | None
    credentials: Path | None
    cluster: str | None
    overrides: tuple[str, ...]


def run_scheduler(session: Session, options: NodeOptions) -> int:
    """Run the scenario's scheduler until Ctrl-C; its journal survives it.

    Raises:
        AnyServeError: the scenario is not valid, or no broker is named.
    """
    joining, cluster = join(session, options)
    journals = state_dir(session.environ).parent / "journals"
    journals.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = node_config(
        NodeRole.SCHEDULER,
        SCHEDULER_ID,
        joining,
        cluster,
        run_dir=journals,
        journal_path=str(journals / f"{cluster.name}.journal"),
        extra={"scenario_dir": str(_scenario(options).absolute().parent)},
    )
    return run_process(config, session.diagnostics)


def run_replica(session: Session, app: AppOptions, options: NodeOptions) -> int:
    """Run one replica until Ctrl-C; it drains first. Without a scenario: an app of its own.

    Raises:
        AnyServeError: the scenario is not valid, has no such replica, or no broker is named.
    """
    joining, cluster, replica_id, directory = _find_replica(session, options, app)
    replica = next(one for one in cluster.replicas if one.id == replica_id)
    if replica.engine.kind == "vllm" and replica.engine.model is not None:
        prepare_model(replica.engine.model, session.diagnostics)
    config = node_config(
        NodeRole.REPLICA,
        replica_id,
        joining,
        cluster,
        run_dir=session.cwd,
        extra={"scenario_dir": directory, "reload": app.reload},
    )
    # An app calls other capabilities, a front door offers what clients ask: both are origins.
    origin = joining.credentials.of(Role.ORIGIN)
    config = msgspec.structs.replace(config, origin_credential=origin)
    if replica.app is None:
        return run_process(config, session.diagnostics)
    with object_plane(session, joining, cluster) as objects:
        config = msgspec.structs.replace(config, objects=objects)
        return run_process(config, session.diagnostics)


def _find_replica(
    session: Session, options: NodeOptions, app: AppOptions
) -> tuple[Joining, ClusterSpec, str, str]:
    """Where to connect, the cluster, the replica's id, and where its app is looked for."""
    here = str(session.cwd)
    if options.scenario is None:
        if app.name is None:
            hint = "anyserve replica SCENARIO --id ID, or anyserve replica --app module:app"
            raise UsageError("name a scenario or an app", code="usage", hint=hint)
        named = (options.broker, options.credentials, options.cluster)
        joining, cluster, replica_id = join_running(session, app, *named)
        return joining, cluster, replica_id, here
    if app.replica_id is None:
        hint = "--id ID, one of the scenario's replicas"
        raise UsageError("say which replica", code="usage", hint=hint)
    joining, cluster = join(session, options)
    if all(one.id != app.replica_id for one in cluster.replicas):
        hint = nearest(app.replica_id, [one.id for one in cluster.replicas])
        message = f"{options.scenario} has no replica {app.replica_id}"
        raise UsageError(message, code="no_such_replica", hint=hint)
    directory = here if app.name else str(options.scenario.absolute().parent)
    changed = with_app(session, cluster, app.replica_id, app, directory)
    return joining, changed, app.replica_id, directory


def join(session: Session, options: NodeOptions) -> tuple[Joining, ClusterSpec]:
    """Where to connect and what the cluster is made of.

    Raises:
        AnyServeError: the scenario is not valid, or no broker is named.
    """
    cluster = load_cluster(_scenario(options), options.overrides)
    joining = join_by(options.broker, options.credentials, session.environ)
    name = options.cluster or joining.cluster or cluster.name
    return joining, msgspec.structs.replace(cluster, name=name)


def _scenario(options: NodeOptions) -> Path:
    assert options.scenario is not None
    return options.scenario


def load_cluster(scenario: Path, overrides: Sequence[str]) -> ClusterSpec:
    """The cluster of a scenario, with the engines of this machine.

    Raises:
        ScenarioInvalid: it is not valid.
    """
    engine = detect().engine.value
    loaded = load_scenario(scenario, overrides)
    return compile_scenario(loaded, seed=0, engine_kind=lambda _section: engine).cluster


def node_config(
    role: NodeRole,
    process_id: str,
    joining: Joining,
    cluster: ClusterSpec,
    *,
    run_dir: Path,
    journal_path: str | None = None,
    extra: dict[str, Any] | None = None,
) -> NodeConfig:
    """The configuration of a process that joins a cluster by itself."""
    return NodeConfig(
        role=role,
        id=process_id,
        cluster=cluster,
        broker=joining.broker,
        credential=joining.credentials.of(Role(role.bus_role)),
        prefix=f"anyserve/{cluster.name}",
        run_dir=str(run_dir),
        incarnation=Incarnations().next(process_id),
        boot_id=boot_id(),
        journal_path=journal_path,
        extra=extra or {},
    )


def run_process(config: NodeConfig, diagnostics: Diagnostics) -> int:
    """Run a node as a child until it ends; Ctrl-C once stops it in order, twice kills it."""
    module = f"anyserve.runtime.{config.role.value}"
    environ = {name: value for name, value in os.environ.items() if name not in SECRET_ENV}
    with tempfile.TemporaryDirectory(prefix="anyserve-") as directory, Lifeline() as lifeline:
        path = Path(directory) / "node.json"
        write_private(path, msgspec.json.encode(config))
        command = [sys.executable, "-m", module, str(path)]
        diagnostics.say(f"{config.role.value} {config.id} joins {config.broker.url}")
        process = subprocess.Popen(
            command,
            pass_fds=lifeline.pass_fds,
            env={**environ, **lifeline.env},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        stopper = _Stopper(process, diagnostics)
        with stopper:
            code = process.wait()
    if stopper.code is not None:
        return stopper.code
    if code < 0:
        diagnostics.error("process_ended", f"{shlex.join(command[1:3])} was killed ({-code})")
        return ExitCode.NOT_STARTED
    return code


class _Stopper:
    """Turns our signals into the child's: SIGTERM first, then SIGKILL."""

    def __init__(self, process: subprocess.Popen[bytes], diagnostics: Diagnostics) -> None:
        self.code: int | None = None
        self._process = process
        self._diagnostics = diagnostics
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        for number in _CODES:
            self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.code is None:
            self.code = _CODES[signal.Signals(number)]
            self._diagnostics.say("stopping; Ctrl-C again to kill")
            self._process.terminate()
        else:
            self._process.kill()
