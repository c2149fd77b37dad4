"""The MQTT bus over a connection that does exactly what the test says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from anyserve.errors import ProtocolError, StartError
from anyserve.runtime.bus.address import BrokerAddress, Credential
from anyserve.runtime.bus.base import Will
from anyserve.runtime.bus.link import LinkEvents, LinkOptions
from anyserve.runtime.bus.mqtt import MqttBus, MqttSettings


class FakeLink:
    """One connection: remembers what was written, acknowledges when told."""

    def __init__(self, options: LinkOptions, events: LinkEvents, error: Exception | None) -> None:
        self.options = options
        self.events = events
        self.error = error
        self.written: list[tuple[str, bytes, int]] = []
        self.subscribed: list[str] = []
        self.codes: Sequence[int] = ()
        self.closed = False
        self._last_id = 0

    async def open(self, timeout_s: float) -> None:
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> Sequence[int]:
        self.subscribed += [topic for topic, _ in filters]
        return self.codes or [qos for _, qos in filters]

    async def unsubscribe(self, topic_filter: str) -> None:
        self.subscribed.remove(topic_filter)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> int:
        self.written.append((topic, payload, qos))
        self._last_id += qos
        return self._last_id if qos else 0

    def unsent_bytes(self) -> int:
        return 0

    def unread_bytes(self) -> int:
        return 7

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload, _ in self.written]


class Broker:
    """Hands out links; the next ones fail as planned in `errors`."""

    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.errors: list[Exception | None] = []
        self.changes: list[tuple[bool, int]] = []
        self.changed = asyncio.Event()

    def link(self, options: LinkOptions, events: LinkEvents) -> FakeLink:
        self.links.append(FakeLink(options, events, self.errors.pop(0) if self.errors else None))
        return self.links[-1]

    def on_connection(self, up: bool, connection: int) -> None:
        self.changes.append((up, connection))
        self.changed.set()

    async def until(self, change: tuple[bool, int]) -> None:
        async with asyncio.timeout(10):
            while change not in self.changes:
                self.changed.clear()
                await self.changed.wait()

    def bus(self, *, will: Will | None = None, **settings: float) -> MqttBus:
        quick = {"backoff_first_s": 0.0001, "backoff_max_s": 0.001, **settings}
        return MqttBus(
            BrokerAddress("broker.example", 1883),
            Credential("replica", "secret"),
            client_id="r1",
            on_message=lambda _topic, _payload, _retain: None,
            on_connection=self.on_connection,
            will=will,
            settings=MqttSettings(**quick),  # type: ignore[arg-type]
            link=self.link,
        )


async def test_the_window_holds_messages_back_and_refills_in_order() -> None:
    broker = Broker()
    bus = broker.bus(window=2)
    await bus.start()
    for number in range(5):
        bus.publish("t", b"%d" % number, qos=1)
    link = broker.links[0]
    assert link.payloads == [b"0", b"1"]
    link.events.on_ack(1)
    assert link.payloads == [b"0", b"1", b"2"]
    assert not await bus.drain(0.001)
    for packet_id in (2, 3, 4, 5):
        link.events.on_ack(packet_id)
    link.events.on_ack(5)  # a second one changes nothing
    assert link.payloads == [b"0", b"1", b"2", b"3", b"4"]
    assert await bus.drain(1)
    assert bus.stats.acknowledged == 5
    assert bus.stats.outgoing_backlog_bytes == 0
    await bus.close()


async def test_after_a_loss_unacknowledged_goes_first_then_queued_then_new() -> None:
    broker = Broker()
    bus = broker.bus(window=3)
    await bus.start()
    await bus.subscribe("inbox", 1)
    for number in range(5):
        bus.publish("t", b"%d" % number, qos=1)
    bus.publish("t", b"never", qos=0)
    first = broker.links[0]
    first.events.on_ack(2)
    first.events.on_lost()
    bus.publish("t", b"never either", qos=0)
    bus.publish("t", b"5", qos=1)
    await broker.until((True, 2))
    second = broker.links[1]
    assert second.subscribed == ["inbox"]
    assert second.payloads == [b"0", b"2", b"3"]
    for packet_id in range(1, 6):
        second.events.on_ack(packet_id)
    assert second.payloads == [b"0", b"2", b"3", b"4", b"5"]
    assert broker.changes == [(True, 1), (False, 1), (True, 2)]
    stats = bus.stats
    assert (stats.sent, stats.acknowledged, stats.resent) == (6, 6, 3)
    assert stats.dropped_qos0 == 2
    assert stats.outgoing_backlog_bytes == 0
    assert stats.incoming_backlog_bytes == 7
    await bus.close()


async def test_it_keeps_trying_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    bus = broker.bus()
    await bus.start()
    broker.errors = [
        ConnectionRefusedError("down"),
        TimeoutError(),
        ProtocolError("not now", code="broker_refused"),
        ZeroDivisionError("a fault in the library"),
    ]
    with caplog.at_level(logging.ERROR):
        broker.links[0].events.on_lost()
        # A number is used up wherever the broker may have taken our will with it.
        await broker.until((True, 5))
    assert "a fault in the library" in caplog.text
    assert bus.stats.reconnects == 1
    await bus.close()


async def test_each_connection_has_its_own_will_and_client_id() -> None:
    broker = Broker()
    bus = broker.bus(will=Will("gone", lambda number: b"%d" % number))
    await bus.start()
    broker.links[0].events.on_lost()
    await broker.until((True, 2))
    wills = [link.options.will for link in broker.links]
    assert [will and will.payload for will in wills] == [b"1", b"2"]
    assert [link.options.client_id for link in broker.links] == ["r1-1", "r1-2"]
    await bus.close()


async def test_a_full_backlog_refuses_counts_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    bus = broker.bus(outgoing_limit_bytes=10)
    await bus.start()
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            bus.publish("replica/r1/reg", b"12345", qos=1)
    assert len(broker.links[0].written) == 2
    assert bus.stats.refused_qos1 == 2
    assert "replica/r1/reg" in caplog.text
    bus.publish("event/r1", b"x", qos=0)
    assert bus.stats.dropped_qos0 == 1
    await bus.close()


async def test_a_denied_subscription_names_the_topic() -> None:
    broker = Broker()
    bus = broker.bus()
    await bus.start()
    broker.links[0].codes = [0x80]
    with pytest.raises(StartError, match="sched/in") as caught:
        await bus.subscribe("sched/in", 1)
    assert caught.value.code == "broker_permission"
    await bus.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProtocolError("bad user name", code="broker_refused"), "broker_refused"),
        (ConnectionRefusedError("refused"), "broker_unreachable"),
        (TimeoutError(), "broker_unreachable"),
    ],
)
async def test_a_start_that_fails_names_the_broker_and_no_password(
    error: Exception, code: str
) -> None:
    broker = Broker()
    broker.errors = [error]
    bus = broker.bus()
    with pytest.raises(StartError, match=r"mqtt://broker\.example:1883") as caught:
        await bus.start()
    assert caught.value.code == code
    assert "secret" not in str(caught.value)
    await bus.close()


async def test_an_owner_that_fails_does_not_cost_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    bus = broker.bus()
    bus._on_connection = lambda up, number: 1 // 0  # type: ignore[assignment]  # noqa: ARG005
    with caplog.at_level(logging.ERROR):
        await bus.start()
    assert bus.connected
    assert bus.stats.callback_errors == 1
    await bus.close()
    assert broker.links[0].closed
