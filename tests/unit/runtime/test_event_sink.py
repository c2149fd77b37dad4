"""What a process says reaches an observer also over the end of the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from anyserve.core.events import Envelope, RunEnded
from anyserve.runtime import eventsink
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.memory import MemoryBroker, MemoryBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.eventsink import EventSink

TOPIC = "anyserve/c/event/p"


class World:
    """One process that speaks and one observer that listens, each on its own connection."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.heard: list[str] = []
        self.broker = MemoryBroker()
        self._reader: BatchReader[Envelope] = BatchReader(Envelope)
        self._changed = asyncio.Event()
        self.observer = MemoryBus(self.broker, Role.OBSERVER, on_message=self._hear)
        self.speaker = MemoryBus(
            self.broker,
            Role.ORIGIN,
            on_message=lambda _topic, _payload, _retain: None,
            on_connection=lambda up, _number: self._on_connection(up=up),
        )
        self.sink = EventSink(
            self.speaker, TOPIC, source="p", incarnation=1, boot="b", now_ns=lambda: self.now_ns
        )

    def _hear(self, topic: str, payload: bytes, _retain: bool) -> None:
        for envelope in self._reader.read(topic, payload):
            assert isinstance(envelope.event, RunEnded)
            self.heard.append(envelope.event.reason)
        self._changed.set()

    def _on_connection(self, *, up: bool) -> None:
        self.sink.on_connection(up=up)
        self._changed.set()

    def say(self, *words: str) -> None:
        for word in words:
            self.sink.emit(RunEnded(reason=word))

    async def until(self, *words: str) -> None:
        async with asyncio.timeout(10):
            while not set(words) <= set(self.heard):
                self._changed.clear()
                await self._changed.wait()

    async def until_connected(self, *, up: bool) -> None:
        async with asyncio.timeout(10):
            while self.speaker.connected is not up:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.observer.start()
    await world.observer.subscribe("anyserve/c/event/+", 0)
    await world.speaker.start()
    yield world
    world.sink.close()
    await world.speaker.close()
    await world.observer.close()


async def test_what_is_said_while_the_broker_is_away_is_heard_when_it_is_back(world: World) -> None:
    world.say("before")
    await world.until("before")
    world.broker.stop()
    await world.until_connected(up=False)
    world.say("meanwhile")
    world.sink.flush()
    assert world.heard == ["before"]
    world.broker.start()
    await world.until("before", "meanwhile")


async def test_the_last_moments_before_are_said_again_and_older_ones_are_not(world: World) -> None:
    world.say("long ago")
    world.now_ns += eventsink.MOMENTS_NS + 1
    world.say("lost on its way")
    world.sink.flush()
    world.broker.stop()  # whatever it held is gone, and the process believes that it was said
    await world.until_connected(up=False)
    world.heard.clear()
    world.broker.start()
    await world.until("lost on its way")
    assert "long ago" not in world.heard


async def test_an_observer_that_is_back_later_hears_it_at_the_second_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventsink, "AGAIN_S", 0.05)
    await world.observer.unsubscribe("anyserve/c/event/+")
    world.broker.stop()
    await world.until_connected(up=False)
    world.say("meanwhile")
    world.broker.start()
    await world.until_connected(up=True)
    await world.observer.subscribe("anyserve/c/event/+", 0)
    await world.until("meanwhile")


async def test_a_process_that_ends_says_it_at_once(world: World) -> None:
    await world.observer.unsubscribe("anyserve/c/event/+")
    world.broker.stop()
    await world.until_connected(up=False)
    world.say("meanwhile")
    world.broker.start()
    await world.until_connected(up=True)
    await world.observer.subscribe("anyserve/c/event/+", 0)
    world.sink.close()
    await world.until("meanwhile")


async def test_what_it_holds_back_is_bounded_and_the_newest_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventsink, "HELD_BYTES", 1000)
    world.broker.stop()
    await world.until_connected(up=False)
    world.say(*(f"word {number}" for number in range(100)))
    world.sink.flush()
    world.broker.start()
    await world.until("word 99")
    assert len(set(world.heard)) < 15
    assert "word 0" not in world.heard
