"""Tiny nodes on a real broker, to see what the supervisor does with real processes.

`python tiny_node.py CONFIG`. They keep to the contract of our nodes and do nothing else; `extra`
tells them to misbehave.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from anyserve.core.events import AnyEvent, Envelope, RunEnded, RunStarted, WorkerChanged
from anyserve.core.messages import Registration, ReplicaState
from anyserve.errors import MissingDependencyError
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.process import NodeConfig, NodeRole, Stop, report_ready, run_node

WORKER = """
from anyserve.runtime.lifeline import watch_lifeline
import time
watch_lifeline(fd=0)
time.sleep(600)
"""


class Node:
    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.seq = 0
        self.bus = MqttBus(
            config.broker,
            config.credential,
            client_id=config.id,
            on_message=lambda _topic, _payload, _retain: None,
        )

    def emit(self, event: AnyEvent) -> None:
        envelope = Envelope(
            t=time.monotonic_ns(),
            source=self.config.id,
            incarnation=self.config.incarnation,
            seq=self.seq,
            event=event,
        )
        self.seq += 1
        topic = f"{self.config.prefix}/event/{self.config.id}"
        self.bus.publish(topic, msgspec.json.encode([envelope]), qos=0)

    def register(self, state: ReplicaState) -> None:
        said = Registration(
            replica=self.config.id,
            incarnation=self.config.incarnation,
            connection=self.bus.connection,
            revision=1,
            state=state,
            offers=[],
            concurrency=1,
        )
        topic = f"{self.config.prefix}/replica/{self.config.id}/reg"
        self.bus.publish(topic, msgspec.json.encode([said]), qos=1, retain=True)


async def main(config: NodeConfig, stop: Stop) -> int:
    if config.extra.get("missing") == config.id:
        raise MissingDependencyError("vLLM is not here", code="no_vllm", hint="install it")
    node = Node(config)
    await node.bus.start()
    code = await ROLES[config.role](node, stop)
    await node.bus.drain(5)
    await node.bus.close()
    return code


async def scheduler(node: Node, stop: Stop) -> int:
    report_ready()
    await stop.wait()
    return 0


async def recorder(node: Node, stop: Stop) -> int:
    report_ready()
    await stop.wait()
    (Path(node.config.run_dir) / "flushed").write_text(stop.reason)
    return 0


async def replica(node: Node, stop: Stop) -> int:
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, start_new_session=True
    ) as worker:
        node.emit(WorkerChanged(replica=node.config.id, state="ready", pid=worker.pid))
        if not node.config.extra.get("never_ready"):
            node.register(ReplicaState.READY)
        await stop.wait()
    return 0


async def player(node: Node, stop: Stop) -> int:
    node.emit(
        RunStarted(run="r", scenario="s", seed=0, planned_requests=0, planned_s=0.0),
    )
    if node.config.extra.get("crash"):
        os.abort()
    play_s = node.config.extra.get("play_s", 0.0)
    try:
        async with asyncio.timeout(play_s):
            await stop.wait()
    except TimeoutError:
        pass
    node.emit(RunEnded(reason="stopped" if stop.requested else "done"))
    return 0


ROLES = {
    NodeRole.SCHEDULER: scheduler,
    NodeRole.RECORDER: recorder,
    NodeRole.REPLICA: replica,
    NodeRole.PLAYER: player,
}

if __name__ == "__main__":
    sys.exit(run_node(main))
