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
from anyserve.core.inputs import BusUp, Delta, Drain, Stepped, Stopping
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
from anyserve.runtime.models.resolve import resolve_model
from anyserve.runtime.node_control import DisturbNode
from anyserve.runtime.placing import place_engines, turn_path
from anyserve.runtime.process import NodeConfig, Stop
from anyserve.runtime.replica.translate import attempt_key, engine_request
from anyserve.runtime.replica.worker_keeper import WorkerKeeper
from anyserve.runtime.wire import Topics, encode

_LOG = logging.getLogger(__name__)
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
        self._keeper = WorkerKeeper(
            self._spec.id,
            make_engine_config(self._spec, devices_of(config, self._spec)),
            feed=self._driver.feed,
            emit=self._driver.events.emit,
            zygote=Path(config.zygote_socket) if config.zygote_socket else None,
            log_path=_worker_log(config),
        )

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
            driver.run(_WithSlow(self._machine, self._keeper), self._machine.start(_now()))
            driver.feed(BusUp(connection=driver.bus.connection))
            filters = ("sched/state", f"replica/{name}/in", f"replica/{name}/entry")
            await driver.subscribe([(driver.topics.any(each), 1) for each in filters])
            keeper = asyncio.create_task(self._keeper.run(), name="worker-keeper")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait((keeper, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not keeper.done():
                await self._drain()
            stopping.cancel()
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            driver.feed(Stopping())
        finally:
            await driver.close()
            if control is not None:
                await control.close()
        if self._keeper.given_up is not None and not stop.requested:
            raise self._keeper.given_up
        return 0

    async def _drain(self) -> None:
        self._driver.feed(Drain())
        end_s = time.monotonic() + DRAIN_S
        while not self._machine.idle and time.monotonic() < end_s:  # noqa: ASYNC110 - core is pure
            await asyncio.sleep(0.02)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, StartWork):
            self._start_work(effect)
        elif isinstance(effect, CancelWork):
            self._keeper.cancel(attempt_key(effect.id, effect.attempt))

    def _start_work(self, work: StartWork) -> None:
        try:
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


def make_engine_config(spec: ReplicaSpec, devices: Devices | None) -> EngineConfig:
    """The worker's configuration, with its model made ready."""
    engine = spec.engine
    model = resolve_model(engine.model) if engine.kind == "vllm" and engine.model else None
    turn = turn_path(devices, os.environ)
    return engine_config(
        engine, model, devices=devices, gpu_turn=None if turn is None else str(turn)
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
