"""The bus in memory: one broker object, any number of buses in the same event loop.

The same promises as over MQTT, so that what runs here runs there: retained messages, wills,
wildcards, access rules, connections that go down and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Final

from anyserve.errors import StartError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import BusStats, OnConnection, OnMessage, Will
from anyserve.runtime.bus.topics import is_proof, matches

_LOG = logging.getLogger(__name__)
_RETRY_S: Final = 0.01


class MemoryBroker:
    """Routes between the buses connected to it. `rules` turns the access rules on."""

    def __init__(self, rules: AccessRules | None = None) -> None:
        self._rules = rules
        self._buses: list[MemoryBus] = []
        self._retained: dict[str, bytes] = {}
        self._up = True

    def stop(self) -> None:
        """Drop every connection and take no new ones. Retained messages stay."""
        self._up = False
        for bus in tuple(self._buses):
            self.drop(bus)

    def start(self) -> None:
        """Take connections again."""
        self._up = True

    def drop(self, bus: MemoryBus) -> None:
        """End one connection without a goodbye: its will is published."""
        if bus not in self._buses:
            return
        will = bus.current_will
        self.leave(bus)
        bus.went_down()
        if will is not None:
            topic, payload = will
            self.route(bus.role, topic, payload, retain=False)

    def join(self, bus: MemoryBus) -> bool:
        """Take a connection; False while the broker is stopped."""
        if self._up:
            self._buses.append(bus)
        return self._up

    def leave(self, bus: MemoryBus) -> None:
        """Forget a connection, with no will."""
        if bus in self._buses:
            self._buses.remove(bus)

    def may_subscribe(self, role: Role, topic_filter: str) -> bool:
        """Whether the access rules let a role subscribe."""
        return self._rules is None or self._rules.may_subscribe(role, topic_filter)

    def replay(self, bus: MemoryBus, topic_filter: str) -> None:
        """Deliver what is retained under a filter."""
        for topic, payload in self._retained.items():
            if matches(topic_filter, topic):
                bus.receive(topic, payload, retain=True)

    def route(self, role: Role, topic: str, payload: bytes, *, retain: bool) -> None:
        """Deliver to everybody who subscribed; what a role may not publish vanishes."""
        if self._rules is not None and not self._rules.may_publish(role, topic):
            return
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        for bus in tuple(self._buses):
            if bus.wants(topic):
                bus.receive(topic, payload, retain=False)


class MemoryBus:
    """`Bus` over a `MemoryBroker`. Messages arrive in a later turn of the loop, as on a network."""

    def __init__(
        self,
        broker: MemoryBroker,
        role: Role,
        *,
        on_message: OnMessage,
        on_connection: OnConnection | None = None,
        will: Will | None = None,
    ) -> None:
        self._broker = broker
        self.role = role
        self._on_message = on_message
        self._on_connection = on_connection
        self._will = will
        self.current_will: tuple[str, bytes] | None = None
        self.on_proof: OnMessage | None = None
        self._connected = False
        self._connection = 0
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._subscriptions: dict[str, int] = {}
        self._queue: deque[tuple[str, bytes, bool]] = deque()
        self._incoming: deque[tuple[str, bytes, bool]] = deque()
        self._scheduled = False
        self._sent = self._received = self._acknowledged = self._reconnects = 0
        self._dropped = self._callback_errors = self._foreign_proofs = 0

    @property
    def connected(self) -> bool:
        """Whether messages go out right now."""
        return self._connected

    @property
    def connection(self) -> int:
        """Number of the last connection."""
        return self._connection

    @property
    def stats(self) -> BusStats:
        """Counters so far."""
        return BusStats(
            sent=self._sent,
            received=self._received,
            acknowledged=self._acknowledged,
            resent=0,
            reconnects=self._reconnects,
            dropped_qos0=self._dropped,
            refused_qos1=0,
            callback_errors=self._callback_errors,
            foreign_proofs=self._foreign_proofs,
            outgoing_backlog_bytes=sum(len(payload) for _, payload, _ in self._queue),
            incoming_backlog_bytes=sum(len(payload) for _, payload, _ in self._incoming),
        )

    async def start(self) -> None:
        """Connect.

        Raises:
            StartError: the broker is stopped.
        """
        if not self._connect():
            raise StartError("the in-memory broker is stopped", code="broker_unreachable")
        self._keeper = asyncio.create_task(self._keep(), name=f"memory bus {self.role}")

    async def close(self) -> None:
        """Leave without a will."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._broker.leave(self)
        self._connected = False
        self._incoming.clear()

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe now and after every reconnect.

        Raises:
            StartError: the access rules deny it.
        """
        if not self._broker.may_subscribe(self.role, topic_filter):
            message = f"the broker denies user '{self.role}' to subscribe to {topic_filter}"
            raise StartError(message, code="broker_permission")
        self._subscriptions[topic_filter] = qos
        if self._connected:
            self._broker.replay(self, topic_filter)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Forget a subscription."""
        self._subscriptions.pop(topic_filter, None)

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> None:
        """Send; QoS 1 waits for the connection to come back, QoS 0 does not."""
        if self._connected:
            self._send(topic, payload, retain=retain)
            self._acknowledged += qos
        elif qos == 0:
            self._dropped += 1
        else:
            self._queue.append((topic, payload, retain))

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is out; False when the time was not enough."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._queue:  # noqa: ASYNC110 - rare, and not worth a wake-up per message
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError:
            return False
        return True

    def wants(self, topic: str) -> bool:
        """Whether a subscription covers the topic."""
        return any(matches(topic_filter, topic) for topic_filter in self._subscriptions)

    def receive(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Take a message from the broker for a later turn of the loop."""
        self._incoming.append((topic, payload, retain))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver_all)

    def went_down(self) -> None:
        """The broker ended this connection."""
        self._connected = False
        self._incoming.clear()
        self._lost.set()

    def _send(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._sent += 1
        self._broker.route(self.role, topic, payload, retain=retain)

    def _connect(self) -> bool:
        number = self._connection + 1
        will = None if self._will is None else (self._will.topic, self._will.payload(number))
        if not self._broker.join(self):
            return False
        self.current_will = will
        self._connection = number
        self._connected = True
        self._lost.clear()
        for topic_filter in self._subscriptions:
            self._broker.replay(self, topic_filter)
        while self._queue:
            topic, payload, retain = self._queue.popleft()
            self._send(topic, payload, retain=retain)
            self._acknowledged += 1
        self._report(up=True)
        return True

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            self._report(up=False)
            while not self._connect():  # noqa: ASYNC110 - a retry, as on a network
                await asyncio.sleep(_RETRY_S)
            self._reconnects += 1

    def _deliver_all(self) -> None:
        self._scheduled = False
        incoming, self._incoming = self._incoming, deque()
        for topic, payload, retain in incoming:
            self._received += 1
            if is_proof(topic):
                self._deliver_proof(topic, payload, retain=retain)
                continue
            try:
                self._on_message(topic, payload, retain)
            except Exception:  # noqa: BLE001 - logged; one bad message must not cost the connection
                self._callback_errors += 1
                _LOG.exception("a message on %s was not handled", topic)

    def _deliver_proof(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.on_proof is None:
            self._foreign_proofs += 1
        else:
            self.on_proof(topic, payload, retain)

    def _report(self, *, up: bool) -> None:
        if self._on_connection is None:
            return
        try:
            self._on_connection(up, self._connection)
        except Exception:  # noqa: BLE001 - logged; the owner's mistake must not cost the connection
            self._callback_errors += 1
            _LOG.exception("the bus owner failed on a change of connection")
