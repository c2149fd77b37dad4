"""A subscriber that stands still while more comes than the embedded broker will hold for it.

    python benchmarks/backlog.py [--megabytes N]

A subscriber is a process of its own, stopped by SIGSTOP while N MB (more than the broker's
`max_pending`) are published to it in messages of 16 KiB, at QoS 0 and then at QoS 1, and then goes
on. A second subscriber of the same topic reads all the time. Counted: what each of them lost, how
often the stopped one had to connect again, how long the publisher was held up, the broker's memory.
At the end both must hear again what is published.
Writes benchmarks/results/backlog.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

import psutil
import uvloop
from bench import report

from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.config import BrokerKind
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.bus.mqtt import MqttBus

CLUSTER = "bench-backlog"
TOPIC = f"anyserve/{CLUSTER}/replica/slow/entry"
PAYLOAD = b"x" * 16_384
AHEAD_MESSAGES = 1024
AHEAD_BYTES = 8 * 2**20
RECOVERY_S = 30.0


class Listener:
    """Remembers numbered messages."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def hear(self, _topic: str, payload: bytes, _retain: bool) -> None:
        self.seen.add(int(payload.partition(b" ")[0]))

    def below(self, number: int) -> int:
        return sum(one < number for one in self.seen)


async def subscriber(port: int, user: str, password: str, qos: int) -> None:
    """The child: listen, and say on every line of input what was heard so far."""
    listener = Listener()
    bus = MqttBus(
        BrokerAddress("127.0.0.1", port),
        Credential(user, password),
        client_id="slow",
        on_message=listener.hear,
    )
    await bus.start()
    await bus.subscribe(TOPIC, qos)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        stats = {
            "received": listener.below(int(line)),
            "last": max(listener.seen, default=-1),
            "reconnects": bus.stats.reconnects,
        }
        print(json.dumps(stats), flush=True)
    await bus.close()


async def ask(child: asyncio.subprocess.Process, sent: int) -> dict[str, int]:
    """What the child heard of the first `sent` messages, and the last it heard of all."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"%d\n" % sent)
    answer: dict[str, int] = json.loads(await asyncio.wait_for(child.stdout.readline(), 60))
    return answer


async def measure(qos: int, megabytes: int) -> dict[str, Any]:
    async with EmbeddedBroker(AccessRules(CLUSTER), kind=BrokerKind.NATS) as broker:
        login = broker.credentials.of(Role.REPLICA)
        command = (sys.executable, __file__, "--subscriber", str(broker.address.port), str(qos))
        environment = {**os.environ, "BENCH_USER": login.user, "BENCH_PASSWORD": login.password}
        child = await asyncio.create_subprocess_exec(*command, env=environment, stdin=-1, stdout=-1)
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        witness = Listener()
        reader = MqttBus(broker.address, login, client_id="witness", on_message=witness.hear)
        writer = MqttBus(
            broker.address,
            broker.credentials.of(Role.ORIGIN),
            client_id="writer",
            on_message=witness.hear,
        )
        await reader.start()
        await reader.subscribe(TOPIC, qos)
        await writer.start()
        os.kill(child.pid, signal.SIGSTOP)
        server = _server()
        sent, held_up, most = await _publish(writer, qos, megabytes, server, witness)
        await asyncio.sleep(1)
        os.kill(child.pid, signal.SIGCONT)
        heard, took_s = await _until_heard(child, writer, qos, sent)
        row = {
            "QoS": qos,
            "MB": megabytes,
            "messages": sent,
            "stopped one lost": sent - heard["received"],
            "its reconnects": heard["reconnects"],
            "hears again after s": took_s,
            "other one lost": sent - witness.below(sent),
            "its reconnects too": reader.stats.reconnects,
            "publisher held up ms": 1000 * held_up,
            "broker MB at most": most,
        }
        for bus in (reader, writer):
            await bus.close()
        child.terminate()
        await child.wait()
        return row


def _server() -> psutil.Process:
    for process in psutil.Process().children(recursive=True):
        if "nats-server" in process.name():
            return process
    raise RuntimeError("no nats-server below this process")


async def _publish(
    writer: MqttBus, qos: int, megabytes: int, server: psutil.Process, witness: Listener
) -> tuple[int, float, float]:
    """Messages sent, the longest pause that the publisher was forced to, the broker's memory."""
    sent, held_up, most = 0, 0.0, 0.0
    while sent * len(PAYLOAD) < megabytes * 1_000_000:
        for _ in range(32):
            writer.publish(TOPIC, b"%d %s" % (sent, PAYLOAD), qos=qos)
            sent += 1
        began = time.monotonic()
        while writer.stats.outgoing_backlog_bytes > AHEAD_BYTES:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.002)
        held_up = max(held_up, time.monotonic() - began)
        # As fast as the other subscriber reads: it is not to be tried.
        while sent - len(witness.seen) > AHEAD_MESSAGES:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        most = max(most, server.memory_info().rss / 2**20)
    await writer.drain(60)
    return sent, held_up, most


async def _until_heard(
    child: asyncio.subprocess.Process, writer: MqttBus, qos: int, sent: int
) -> tuple[dict[str, int], float]:
    """Publish on until the subscriber has heard one that was sent after it went on."""
    number, began = sent, time.monotonic()
    while time.monotonic() < began + RECOVERY_S:
        writer.publish(TOPIC, b"%d %s" % (number, PAYLOAD), qos=qos)
        number += 1
        await asyncio.sleep(0.1)
        heard = await ask(child, sent)
        if heard["last"] >= sent:
            return heard, time.monotonic() - began
    raise RuntimeError(f"the subscriber does not hear again: {await ask(child, sent)}")


async def measure_all(megabytes: int) -> list[dict[str, Any]]:
    return [await measure(qos, megabytes) for qos in (0, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--subscriber", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.subscriber:
        port, qos = arguments.subscriber
        user, password = os.environ["BENCH_USER"], os.environ["BENCH_PASSWORD"]
        uvloop.run(subscriber(port, user, password, qos))
        return
    rows = uvloop.run(measure_all(arguments.megabytes))
    report("backlog", "a subscriber stands still while too much comes", rows)


if __name__ == "__main__":
    main()
