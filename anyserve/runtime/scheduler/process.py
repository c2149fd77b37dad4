"""Wires `core.Scheduler` to bus, journal and clock."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Final

from anyserve.core.effects import Effect, Persist
from anyserve.core.messages import SchedulerInbound, SchedulerState
from anyserve.core.scheduler import Scheduler
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.driver import Driver
from anyserve.runtime.process import NodeConfig, Stop, report_ready
from anyserve.runtime.scheduler.journal import Journal
from anyserve.runtime.scheduler.recording import recorded
from anyserve.runtime.wire import Topics
from anyserve.workload.policies import load_policy

RETAINED_S: Final = 0.3
"""How long a retained message of an earlier life may take to arrive."""


async def serve(config: NodeConfig, stop: Stop) -> int:
    """Run until asked to stop.

    Raises:
        StartError: no broker, or no permission.
        AnyServeError: a policy that cannot be loaded.
    """
    rules = config.cluster.scheduler
    rng = random.Random(rules.seed)  # noqa: S311 - policies draw replicas, not secrets
    policy = load_policy(rules, rng, config.extra.get("scenario_dir"))
    scheduler = Scheduler(
        config.cluster, policy, rng, incarnation=config.incarnation, boot=config.boot_id
    )
    path = config.journal_path or str(Path(config.run_dir) / "scheduler.journal")
    journal = Journal(Path(path))
    scheduler.replay(journal.read())
    journal.begin(scheduler.journal() if scheduler.epoch else [])

    def perform(effect: Effect) -> None:
        if isinstance(effect, Persist):
            journal.append(effect.record, scheduler.journal)

    driver = Driver(
        role=Role.SCHEDULER,
        name="scheduler",
        inbound=SchedulerInbound,
        perform=perform,
        address=config.broker,
        credential=config.credential,
        prefix=config.prefix,
        incarnation=config.incarnation,
        boot=config.boot_id,
        lagging=True,
    )
    recording = recorded(scheduler, Path(config.run_dir), config.boot_id)
    try:
        await driver.connect()
        seen_epoch = await _retained_epoch(config)
        machine = recording or scheduler
        first = machine.start(time.monotonic_ns(), seen_epoch=seen_epoch)
        driver.run(machine, [effect for effect in first if isinstance(effect, Persist)])
        # Listen before this life is announced: replicas answer the announcement once.
        filters = ("sched/in", "replica/+/reg", "replica/+/gone", "origin/+/gone")
        await driver.subscribe([(driver.topics.any(each), 1) for each in filters])
        driver.carry_out([effect for effect in first if not isinstance(effect, Persist)])
        report_ready()
        await stop.wait()
    finally:
        await driver.close()
        journal.close()
        if recording is not None:
            recording.close()
    return 0


async def _retained_epoch(config: NodeConfig) -> int:
    """The epoch that an earlier life left at the broker; 0: none."""
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    reader: BatchReader[SchedulerState] = BatchReader(SchedulerState)

    def on_message(topic: str, payload: bytes, _retained: bool) -> None:  # noqa: FBT001
        for state in reader.read(topic, payload):
            if not heard.done():
                heard.set_result(state.epoch)

    bus = MqttBus(
        config.broker,
        config.credential,
        client_id=f"scheduler-epoch-{config.incarnation}",
        on_message=on_message,
    )
    await bus.start()
    try:
        await bus.subscribe(Topics(config.prefix).any("sched/state"), 1)
        return await asyncio.wait_for(heard, RETAINED_S)
    except TimeoutError:
        return 0
    finally:
        await bus.close()
