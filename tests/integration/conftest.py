"""Real brokers, and one way to handle them and the in-memory one alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from anyserve.errors import MissingDependencyError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.config import BrokerKind, find_broker
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Bus, OnConnection, OnMessage, Will
from anyserve.runtime.bus.memory import MemoryBroker, MemoryBus
from anyserve.runtime.bus.mqtt import MqttBus

WAIT_S = 15.0


@dataclass
class Inbox:
    """Keeps what a bus delivers and lets a test wait for it."""

    messages: list[tuple[str, bytes, bool]] = field(default_factory=list)
    ups_and_downs: list[tuple[bool, int]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_message(self, topic: str, payload: bytes, retain: bool) -> None:
        self.messages.append((topic, payload, retain))
        self._changed.set()

    def on_connection(self, up: bool, connection: int) -> None:
        self.ups_and_downs.append((up, connection))
        self._changed.set()

    def payloads(self, topic: str | None = None) -> list[bytes]:
        return [p for t, p, _ in self.messages if topic in {None, t}]

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def wait(self, count: int) -> list[tuple[str, bytes, bool]]:
        await self.until(lambda: len(self.messages) >= count)
        return self.messages


class Backend(Protocol):
    """A broker of some kind, with what a test may do to it."""

    rules: AccessRules

    def bus(
        self,
        role: Role,
        on_message: OnMessage,
        *,
        on_connection: OnConnection | None = None,
        will: Will | None = None,
    ) -> Bus: ...

    def drop(self, bus: Bus) -> None: ...

    async def kill(self) -> None: ...

    async def restart(self) -> None: ...


class MemoryBackend:
    def __init__(self, rules: AccessRules) -> None:
        self.rules = rules
        self._broker = MemoryBroker(rules)

    def bus(
        self,
        role: Role,
        on_message: OnMessage,
        *,
        on_connection: OnConnection | None = None,
        will: Will | None = None,
    ) -> Bus:
        return MemoryBus(
            self._broker, role, on_message=on_message, on_connection=on_connection, will=will
        )

    def drop(self, bus: Bus) -> None:
        assert isinstance(bus, MemoryBus)
        self._broker.drop(bus)

    async def kill(self) -> None:
        self._broker.stop()

    async def restart(self) -> None:
        self._broker.start()


class MqttBackend:
    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.rules = broker.rules
        self._made = 0

    def bus(
        self,
        role: Role,
        on_message: OnMessage,
        *,
        on_connection: OnConnection | None = None,
        will: Will | None = None,
    ) -> Bus:
        self._made += 1
        return MqttBus(
            self.broker.address,
            self.broker.credentials.of(role),
            client_id=f"test-{role}-{self._made}",
            on_message=on_message,
            on_connection=on_connection,
            will=will,
        )

    def drop(self, bus: Bus) -> None:
        assert isinstance(bus, MqttBus)
        link = bus._link
        assert link is not None
        transport = link._transport()  # type: ignore[attr-defined]
        transport.abort()

    async def kill(self) -> None:
        await self.broker.kill()

    async def restart(self) -> None:
        await self.broker.restart()


def skip_without(kind: BrokerKind) -> None:
    try:
        find_broker(kind)
    except MissingDependencyError:
        pytest.skip(f"{kind} is not installed here (apt install mosquitto)")


@pytest.fixture
def rules() -> AccessRules:
    return AccessRules("c")


@pytest.fixture(params=["memory", BrokerKind.NATS, BrokerKind.MOSQUITTO])
async def backend(request: pytest.FixtureRequest, rules: AccessRules) -> AsyncIterator[Backend]:
    if request.param == "memory":
        yield MemoryBackend(rules)
        return
    skip_without(request.param)
    async with EmbeddedBroker(rules, kind=request.param) as broker:
        yield MqttBackend(broker)


@dataclass
class Client:
    bus: Bus
    inbox: Inbox


class Connect(Protocol):
    """Makes a started client that has subscribed, and is closed after the test."""

    async def __call__(
        self, role: Role, *filters: str, will: Will | None = None, qos: int = 1
    ) -> Client: ...


@pytest.fixture
async def connect(backend: Backend) -> AsyncIterator[Connect]:
    clients: list[Client] = []

    async def _connect(role: Role, *filters: str, will: Will | None = None, qos: int = 1) -> Client:
        inbox = Inbox()
        bus = backend.bus(role, inbox.on_message, on_connection=inbox.on_connection, will=will)
        await bus.start()
        clients.append(Client(bus, inbox))
        for topic_filter in filters:
            await bus.subscribe(topic_filter, qos)
        return clients[-1]

    yield _connect
    for client in clients:
        await client.bus.close()
