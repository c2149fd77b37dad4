"""`MetricsFeed`: hears the events of the cluster, as an observer, for `/metrics`.

Requests come first: events wait in a bounded queue and are folded in short turns between which the
loop serves everything else. What does not fit is dropped and counted, never waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from anyserve.core.events import Envelope
from anyserve.core.messages import Registration, SchedulerState
from anyserve.runtime.bus.address import BrokerAddress, Credential
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.ingress.figures import ingress_families
from anyserve.runtime.ingress.front import Front
from anyserve.runtime.wire import Topics
from anyserve.telemetry.metrics import ClusterMetrics
from anyserve.telemetry.metrics.exposition import render

MAX_WAITING_BYTES: Final = 8 * 2**20
TURN_S: Final = 0.002
"""So long it folds before others have their turn."""
REST_S: Final = 0.05
"""So long events are collected before they are folded: fewer wake-ups."""


class MetricsFeed:
    """One observer's connection and the fold of what it hears."""

    def __init__(
        self,
        front: Front,
        *,
        address: BrokerAddress,
        credential: Credential | None,
        prefix: str,
        client_id: str,
    ) -> None:
        self.metrics = ClusterMetrics()
        self.dropped = 0
        self._front = front
        self._topics = Topics(prefix)
        self._events: BatchReader[Envelope] = BatchReader(Envelope)
        self._states: BatchReader[Registration | SchedulerState] = BatchReader(
            Registration | SchedulerState
        )
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._folding: asyncio.TimerHandle | None = None
        self._bus = MqttBus(address, credential, client_id=client_id, on_message=self._on_message)

    async def start(self) -> None:
        """Connect and listen.

        Raises:
            StartError: no broker, or it denies the subscription.
        """
        await self._bus.start()
        await self._bus.subscribe(self._topics.event("+"), 0)
        # Retained: what replicas and scheduler had said before we came.
        await self._bus.subscribe(self._topics.any("replica/+/reg"), 1)
        await self._bus.subscribe(self._topics.any("sched/state"), 1)

    async def close(self) -> None:
        """Stop listening."""
        if self._folding is not None:
            self._folding.cancel()
            self._folding = None
        await self._bus.close()

    def exposition(self) -> str:
        """What a scraper reads: the cluster's metrics, and those of this ingress."""
        self._fold(float("inf"))
        families = ingress_families(self._front, self.dropped)
        return render(self.metrics, families).decode()

    def _on_message(self, topic: str, payload: bytes, _retained: bool) -> None:  # noqa: FBT001 - the bus calls it so
        if self._bytes + len(payload) > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._waiting.append((topic, payload))
        self._bytes += len(payload)
        if self._folding is None:
            self._folding = asyncio.get_running_loop().call_later(REST_S, self._turn)

    def _turn(self) -> None:
        self._folding = None
        self._fold(time.monotonic() + TURN_S)
        if self._waiting:
            self._folding = asyncio.get_running_loop().call_later(TURN_S, self._turn)

    def _fold(self, until_s: float) -> None:
        while self._waiting and time.monotonic() < until_s:
            topic, payload = self._waiting.popleft()
            self._bytes -= len(payload)
            self._read(topic, payload)

    def _read(self, topic: str, payload: bytes) -> None:
        if topic.startswith(self._topics.event("")):
            for envelope in self._events.read(topic, payload):
                self.metrics.apply(envelope)
            return
        for said in self._states.read(topic, payload):
            if isinstance(said, Registration):
                self.metrics.registered(said)
            else:
                self.metrics.scheduled(said)
