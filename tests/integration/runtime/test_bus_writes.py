"""What is said in one turn of the event loop leaves in one write, and a goodbye behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.embedded import EmbeddedBroker
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.link import GmqttLink
from anyserve.runtime.bus.mqtt import MqttBus

TOPIC = "anyserve/c/replica/r1/entry"


class Heard:
    """Keeps payloads, and lets a test wait for so many."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self._changed = asyncio.Event()

    def on_message(self, _topic: str, payload: bytes, _retain: bool) -> None:
        self.payloads.append(payload)
        self._changed.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(15):
            while len(self.payloads) < count:
                self._changed.clear()
                await self._changed.wait()


def bus(broker: EmbeddedBroker, role: Role, heard: Heard) -> MqttBus:
    login = broker.credentials.of(role)
    return MqttBus(broker.address, login, client_id=f"w-{role}", on_message=heard.on_message)


async def test_one_turn_is_one_write_and_a_goodbye_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = Heard()
    async with EmbeddedBroker(AccessRules("c")) as broker:
        reader, writer = bus(broker, Role.REPLICA, heard), bus(broker, Role.ORIGIN, Heard())
        await reader.start()
        await reader.subscribe(TOPIC, 1)
        await writer.start()
        writes, writing = list[int](), id(writer._link)
        flush = GmqttLink._flush

        def counted(link: Any) -> None:
            if id(link) == writing:
                writes.append(len(link._unsent))
            flush(link)

        monkeypatch.setattr(GmqttLink, "_flush", counted)
        for number in range(5):
            writer.publish(TOPIC, b"%d" % number, qos=0)
        assert writer.stats.outgoing_backlog_bytes > 0
        await heard.wait(5)
        assert writes[0] == 5
        writer.publish(TOPIC, b"last", qos=0)
        await writer.close()
        await heard.wait(6)
        await reader.close()
    assert heard.payloads == [b"0", b"1", b"2", b"3", b"4", b"last"]
