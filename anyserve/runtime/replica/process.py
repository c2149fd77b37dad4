"""Wires `core.Replica` to bus, worker and clock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from pathlib import Path
from typing import Any, Final

from anyserve.core.effects import CancelWork, Effect, StartWork
from anyserve.core.inputs import BusUp, Delta, Drain, Stepped, Stopping, WorkerDied
from anyserve.core.messages import Code, Control, Gone, ReplicaInbound
from anyserve.core.placement import Devices
from anyserve.core.replica import Replica
from anyserve.core.spec import ReplicaSpec
from anyserve.errors import ProtocolError, UsageError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Will
from anyserve.runtime.control import LineServer
from anyserve.runtime.disturbing import Disturber
from anyserve.runtime.driver import Driver
from anyserve.runtime.engines.base import EngineConfig
from anyserve.runtime.engines.config import engine_config
from anyserve.runtime.ingress.doors import door_name, has_replica_doors, replica_ports
from anyserve.runtime.ingress.ingress import Ingress, IngressOptions
from anyserve.runtime.models.resolve import resolve_model
from anyserve.runtime.node_control import DisturbNode
from anyserve.runtime.placing import place_engines, turn_path
from anyserve.runtime.process import NodeConfig, Stop
from anyserve.runtime.replica.handlers import Handlers
from anyserve.runtime.replica.reload import Reloading
from anyserve.runtime.replica.translate import attempt_key, engine_request
from anyserve.runtime.replica.worker_keeper import WorkerInput, WorkerKeeper, WorkerRules
from anyserve.runtime.wire import Topics, encode

_LOG = logging.getLogger(__name__)
_PATIENT: Final = 10_000
"""Deaths of a worker that are borne while its code is being written."""
DRAIN_S: Final = 3.0
"""How long running requests may go on after the wish to stop; below the supervisor's grace."""


async def serve(config: NodeConfig, stop: Stop) -> int:
    """Run until asked to stop, or until the worker has died too often.

    Raises:
        StartError: no broker, or no permission.
        MissingDependencyError: the engine's model cannot be made ready.
    """
    node = _ReplicaNode(config)
    return await node.run(stop)


class _ReplicaNode:
    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._spec = _find_spec(config)
        self._machine = Replica(
            self._spec,
            config.cluster,
            incarnation=config.incarnation,
            boot=config.boot_id,
            pid=os.getpid(),
        )
        topics = Topics(config.prefix)
        self._driver = Driver(
            role=Role.REPLICA,
            name=self._spec.id,
            inbound=ReplicaInbound,
            perform=self._perform,
            address=config.broker,
            credential=config.credential,
            prefix=config.prefix,
            incarnation=config.incarnation,
            boot=config.boot_id,
            will=Will(topics.gone("replica", self._spec.id), self._will),
        )
        self._door = _door_of(config)
        self._handlers = None if self._spec.app is None else Handlers(self._spec, config)
        self._keeper = WorkerKeeper(
            self._spec.id,
            make_engine_config(
                self._spec,
                devices_of(config, self._spec),
                scenario_dir=config.extra.get("scenario_dir"),
            ),
            feed=self._feed_worker,
            emit=self._driver.events.emit,
            zygote=Path(config.zygote_socket) if config.zygote_socket else None,
            log_path=_worker_log(config),
            app=None if self._handlers is None else self._handlers.app,
            handlers=self._handlers,
            rules=WorkerRules(exits=_PATIENT) if config.extra.get("reload") else None,
        )
        if self._handlers is not None:
            self._handlers.attach(self._keeper, self._driver.feed)

    def _will(self, connection: int) -> bytes:
        gone = Gone(
            source=self._spec.id, incarnation=self._config.incarnation, connection=connection
        )
        return b"[" + encode(gone) + b"]"

    async def run(self, stop: Stop) -> int:
        driver, name = self._driver, self._spec.id
        control = _control_server(self._config, driver)
        try:
            if control is not None:
                await control.start()
            await driver.connect()
            if self._handlers is not None:
                await self._handlers.start()
            driver.run(_WithSlow(self._machine, self._keeper), self._machine.start(_now()))
            driver.feed(BusUp(connection=driver.bus.connection))
            filters = ("sched/state", f"replica/{name}/in", f"replica/{name}/entry")
            await driver.subscribe([(driver.topics.any(each), 1) for each in filters])
            if self._door is not None:
                await self._door.open()
            keeper = asyncio.create_task(self._keeper.run(), name="worker-keeper")
            watching = self._watch_code()
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait((keeper, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not keeper.done():
                await self._drain()
            stopping.cancel()
            keeper.cancel()
            if watching is not None:
                watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            driver.feed(Stopping())
        finally:
            if self._door is not None:
                await self._door.close()
            if self._handlers is not None:
                await self._handlers.close()
            await driver.close()
            if control is not None:
                await control.close()
        if self._keeper.given_up is not None and not stop.requested:
            raise self._keeper.given_up
        return 0

    async def _drain(self) -> None:
        if self._door is not None:
            self._door.front.begin_drain()
        self._driver.feed(Drain())
        end_s = time.monotonic() + DRAIN_S
        while not self._machine.idle and time.monotonic() < end_s:  # noqa: ASYNC110 - core is pure
            await asyncio.sleep(0.02)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, StartWork):
            self._start_work(effect)
        elif isinstance(effect, CancelWork):
            key = attempt_key(effect.id, effect.attempt)
            self._keeper.cancel(key)
            if self._handlers is not None:
                self._handlers.end(key)

    def _feed_worker(self, what: WorkerInput) -> None:
        if isinstance(what, WorkerDied) and self._handlers is not None:
            self._handlers.end_all()
        self._driver.feed(what)

    def _watch_code(self) -> asyncio.Task[None] | None:
        """In development: start the worker anew when the handlers' code has changed."""
        app = self._spec.app
        if app is None or not self._config.extra.get("reload"):
            return None
        reloading = Reloading(app, self._config.extra.get("scenario_dir", ""), self._keeper)
        return asyncio.create_task(reloading.run(), name="watch-code")

    def _start_work(self, work: StartWork) -> None:
        try:
            if self._handlers is not None and self._handlers.serves(work):
                self._handlers.begin(work)
            else:
                self._keeper.submit(engine_request(work))
        except ProtocolError as error:
            delta = Delta(
                id=work.request.id,
                attempt=work.attempt,
                done=True,
                error=error.message,
                error_code=Code.INVALID,
            )
            # Not now: we are inside the effects of the message that started this attempt.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._driver.feed, Stepped(deltas=[delta]))


def _control_server(config: NodeConfig, driver: Driver) -> LineServer | None:
    """Takes faults of our connection; None for a replica that somebody started by hand."""
    if config.control_path is None:
        return None
    seed = f"{config.cluster.scheduler.seed} {config.id}"
    disturber = Disturber(driver.bus, random.Random(seed))  # noqa: S311 - draws faults

    async def handle(request: DisturbNode) -> None:
        disturber.act(request.how)

    return LineServer(Path(config.control_path), handle, DisturbNode)


class _WithSlow:
    """The machine, with the one wish that concerns the worker alone taken out before it."""

    def __init__(self, machine: Replica, keeper: WorkerKeeper) -> None:
        self._machine = machine
        self._keeper = keeper

    def handle(self, now: int, message: Any) -> list[Effect]:
        if isinstance(message, Control) and message.action == "slow":
            self._keeper.slow(message.factor)
            return []
        return self._machine.handle(now, message)


def make_engine_config(
    spec: ReplicaSpec, devices: Devices | None, scenario_dir: str | None = None
) -> EngineConfig:
    """The worker's configuration, with its model made ready."""
    engine = spec.engine
    model = resolve_model(engine.model) if engine.kind == "vllm" and engine.model else None
    turn = turn_path(devices, os.environ)
    return engine_config(
        engine,
        model,
        devices=devices,
        gpu_turn=None if turn is None else str(turn),
        scenario_dir=scenario_dir,
    )


def own_devices(spec: ReplicaSpec) -> Devices | None:
    """The GPUs of a replica for which no supervisor has planned; the others' memory is taken.

    Raises:
        AnyServeError: there are none for it.
    """
    return place_engines([spec], os.environ).of(spec.id)


def devices_of(config: NodeConfig, spec: ReplicaSpec) -> Devices | None:
    """The GPUs of a replica: what its supervisor has planned, or else what it finds itself."""
    return config.devices if config.placed else own_devices(spec)


def _door_of(config: NodeConfig) -> Ingress | None:
    """The front door in this process, where the cluster wants one."""
    settings = config.cluster.ingress
    if settings is None or not has_replica_doors(settings):
        return None
    place = [spec.id for spec in config.cluster.replicas].index(config.id)
    http_port, grpc_port = replica_ports(settings, place)
    name = door_name(config.id)
    log_path = None if config.log_path is None else Path(config.run_dir) / f"origin-{name}.jsonl"
    options = IngressOptions(
        cluster=config.cluster,
        broker=config.broker,
        credential=config.origin_credential,
        prefix=config.prefix,
        name=name,
        incarnation=config.incarnation,
        boot=config.boot_id,
        http_port=http_port,
        grpc_port=grpc_port,
        replica=config.id,
        log_path=log_path,
    )
    return Ingress(options, os.environ)


def _find_spec(config: NodeConfig) -> ReplicaSpec:
    for spec in config.cluster.replicas:
        if spec.id == config.id:
            return spec
    known = ", ".join(spec.id for spec in config.cluster.replicas)
    raise UsageError(
        f"the cluster has no replica {config.id!r}", code="unknown_replica", hint=f"it has {known}"
    )


def _worker_log(config: NodeConfig) -> Path | None:
    if config.log_path is None:
        return None
    return Path(config.log_path).with_name(f"worker-{config.id}.log")


def _now() -> int:
    return time.monotonic_ns()
