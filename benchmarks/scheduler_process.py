"""The scheduler's own process between a real broker and replicas that only answer.

A part of `scheduler.py`: the scheduler runs as in any cluster, with its journal, events and
heartbeats. All replicas are played by this process: each sends its registration, a heartbeat a
second, and for every assignment what a replica says, as its own message: `started` and, 50 ms
later, `ended`, each with a credit. So messages carry as much as they do in a real cluster, and no
more. CPU is that of the scheduler's process alone.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil
from scheduler import BODY, SLOTS

from anyserve.core import messages as msg
from anyserve.core.spec import CapabilitySpec, ClusterSpec
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.process import NodeConfig, NodeRole, boot_id
from anyserve.runtime.wire import encode

CLUSTER = "bench-scheduler"
PREFIX = f"anyserve/{CLUSTER}"
SERVICE_TICKS, TICK_S = 10, 0.005
OPEN = 128
WARM_UP_S = 1.0


@dataclass
class Fake:
    """What a replica knows of its credits, and how often it spoke."""

    name: str
    granted: int = SLOTS
    seen: int = 0
    sequence: int = 0

    def credit(self, epoch: int) -> msg.Credit:
        self.sequence += 1
        return msg.Credit(
            replica=self.name,
            incarnation=1,
            epoch=epoch,
            sequence=self.sequence,
            granted_total=self.granted,
            taken_total=0,
            assigned_seen=self.seen,
            ordinals_below=self.seen,
        )


@dataclass
class Players:
    """All replicas and one origin, on a connection for each of the two roles."""

    replicas: dict[str, Fake]
    epoch: int = 0
    done: int = 0
    sent: int = 0
    payloads: int = 0
    messages: int = 0
    stopping: bool = False
    _number: int = 0
    _ending: list[dict[str, list[tuple[str, int]]]] = field(
        default_factory=lambda: [defaultdict(list) for _ in range(SERVICE_TICKS)]
    )
    _over: list[str] = field(default_factory=list)
    _tick: int = 0
    _known: asyncio.Event = field(default_factory=asyncio.Event)

    def connect(self, broker: EmbeddedBroker) -> None:
        login = broker.credentials.of
        self.as_replica = MqttBus(
            broker.address, login(Role.REPLICA), client_id="replicas", on_message=self._hear_replica
        )
        self.as_origin = MqttBus(
            broker.address, login(Role.ORIGIN), client_id="origin", on_message=self._hear_origin
        )
        self._assigns: BatchReader[msg.ReplicaInbound] = BatchReader(msg.ReplicaInbound)
        self._states: BatchReader[msg.SchedulerState] = BatchReader(msg.SchedulerState)

    async def start(self) -> None:
        await self.as_replica.start()
        await self.as_origin.start()
        await self.as_replica.subscribe(f"{PREFIX}/replica/+/in", 1)
        await self.as_origin.subscribe(f"{PREFIX}/sched/state", 1)
        await self._known.wait()
        for name, fake in self.replicas.items():
            registration = msg.Registration(
                replica=name,
                incarnation=1,
                connection=1,
                revision=1,
                state=msg.ReplicaState.READY,
                offers=[msg.Offer(capability="decode")],
                concurrency=SLOTS,
            )
            self.as_replica.publish(
                f"{PREFIX}/replica/{name}/reg", _list(registration), qos=1, retain=True
            )
            self._say(fake)
            await asyncio.sleep(0)
        await self.as_replica.drain(20)

    def _hear_origin(self, topic: str, payload: bytes, _retain: bool) -> None:
        for state in self._states.read(topic, payload):
            self.epoch = state.epoch
            self._known.set()

    def _hear_replica(self, topic: str, payload: bytes, _retain: bool) -> None:
        fake = self.replicas[topic.split("/")[3]]
        said: list[msg.AnyMessage] = []
        for message in self._assigns.read(topic, payload):
            if isinstance(message, msg.Assign):
                fake.seen += 1
                key = (message.request.id, message.attempt)
                said.append(
                    msg.Started(id=key[0], attempt=key[1], replica=fake.name, incarnation=1)
                )
                self._ending[(self._tick - 1) % SERVICE_TICKS][fake.name].append(key)
        if said:
            self._say(fake, *said)

    def _say(self, fake: Fake, *messages: msg.AnyMessage) -> None:
        self._publish(self.as_replica, *messages, fake.credit(self.epoch))

    def _publish(self, bus: MqttBus, *messages: msg.AnyMessage) -> None:
        self.payloads += 1
        self.messages += len(messages)
        bus.publish(f"{PREFIX}/sched/in", _list(*messages), qos=1)

    async def play(self) -> None:
        """A step of all engines every `TICK_S`; as many requests open as at first."""
        self._submit(OPEN)
        beats = list(self.replicas.values())
        per_tick, credit = len(beats) * TICK_S, 0.0
        while not self.stopping:
            await asyncio.sleep(TICK_S)
            due, self._ending[self._tick % SERVICE_TICKS] = (
                self._ending[self._tick % SERVICE_TICKS],
                defaultdict(list),
            )
            self._tick += 1
            ended = 0
            for name, keys in due.items():
                ended += self._end(self.replicas[name], keys)
            self.done += ended
            self._submit(ended)
            if self._tick % 8 == 0 and self._over:
                over, self._over = self._over, []
                settled = msg.Settled(origin="player", incarnation=1, ids=over)
                self._publish(self.as_origin, settled)
            credit += per_tick
            while credit >= 1:
                credit -= 1
                beats.append(beats.pop(0))
                self._say(beats[0])

    def _end(self, fake: Fake, keys: list[tuple[str, int]]) -> int:
        fake.granted += len(keys)
        ended = [
            msg.Ended(
                id=request,
                attempt=attempt,
                replica=fake.name,
                incarnation=1,
                status=msg.AttemptStatus.COMPLETED,
            )
            for request, attempt in keys
        ]
        self._over += [request for request, _ in keys]
        self._say(fake, *ended)
        return len(keys)

    def _submit(self, count: int) -> None:
        if not count:
            return
        submits = []
        for _ in range(count):
            self._number += 1
            request = msg.Request(
                id=f"player/1/{self._number}",
                asked="decode",
                capability="decode",
                prompt_tokens=128,
                max_tokens=16,
                offered_ns=time.monotonic_ns(),
                boot=boot_id(),
                body=BODY,
            )
            submits.append(msg.Submit(request=request, epoch=self.epoch))
        self._publish(self.as_origin, *submits)


def _list(*messages: msg.AnyMessage) -> bytes:
    return encode(list(messages))


async def measure_process(replicas: int, seconds: float) -> dict[str, object]:
    directory = Path(tempfile.mkdtemp(prefix="anyserve-bench-"))
    spec = ClusterSpec(name=CLUSTER, capabilities=(CapabilitySpec(name="decode"),), replicas=())
    try:
        async with EmbeddedBroker(AccessRules(CLUSTER)) as broker:
            config = NodeConfig(
                role=NodeRole.SCHEDULER,
                id="scheduler",
                cluster=spec,
                broker=broker.address,
                credential=broker.credentials.of(Role.SCHEDULER),
                prefix=PREFIX,
                run_dir=str(directory),
                incarnation=time.time_ns() // 1_000_000,
                boot_id=boot_id(),
                log_path=str(directory / "scheduler.log"),
            )
            path = directory / "config.json"
            path.write_bytes(msgspec.json.encode(config))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "anyserve.runtime.scheduler", str(path)
            )
            try:
                return await _measure(psutil.Process(process.pid), broker, replicas, seconds)
            finally:
                process.terminate()
                await asyncio.wait_for(process.wait(), 20)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _measure(
    process: psutil.Process, broker: EmbeddedBroker, replicas: int, seconds: float
) -> dict[str, object]:
    names = [f"r{number}" for number in range(replicas)]
    random.Random(0).shuffle(names)
    players = Players({name: Fake(name) for name in names})
    players.connect(broker)
    await players.start()
    playing = asyncio.create_task(players.play())
    await asyncio.sleep(WARM_UP_S)
    before, done, began = _cpu_s(process), players.done, time.monotonic()
    payloads, messages = players.payloads, players.messages
    await asyncio.sleep(seconds)
    spent, done = _cpu_s(process) - before, players.done - done
    took = time.monotonic() - began
    payloads, messages = players.payloads - payloads, players.messages - messages
    players.stopping = True
    await playing
    await players.as_replica.close()
    await players.as_origin.close()
    return {
        "what": "whole process",
        "replicas": replicas,
        "policy": "least-loaded",
        "us/request": 1e6 * spent / done,
        "requests/s of CPU": done / spent,
        "requests/s": done / took,
        "messages/payload": messages / payloads,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
