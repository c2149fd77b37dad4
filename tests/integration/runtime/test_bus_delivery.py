"""What every bus promises about messages: the same over memory, nats and mosquitto."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from anyserve.errors import StartError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Will

if TYPE_CHECKING:
    from tests.integration.conftest import Backend, Connect

SCHED_IN = "anyserve/c/sched/in"


@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_of_a_topic_arrive_once_and_in_order(connect: Connect, qos: int) -> None:
    scheduler = await connect(Role.SCHEDULER, SCHED_IN)
    origin = await connect(Role.ORIGIN)
    sent = [b"%d" % number for number in range(500)]
    for payload in sent:
        origin.bus.publish(SCHED_IN, payload, qos=qos)
    await scheduler.inbox.wait(len(sent))
    assert await origin.bus.drain(5)
    assert scheduler.inbox.payloads() == sent
    assert origin.bus.stats.sent == len(sent)
    assert origin.bus.stats.outgoing_backlog_bytes == 0


async def test_order_holds_when_qos_0_follows_queued_qos_1(connect: Connect) -> None:
    observer = await connect(Role.OBSERVER, "anyserve/c/event/e", qos=0)
    origin = await connect(Role.ORIGIN)
    sent = [b"%d" % number for number in range(300)]
    for number, payload in enumerate(sent):
        # The window of QoS 1 is full after 100: the last messages wait behind it.
        origin.bus.publish("anyserve/c/event/e", payload, qos=1 if number < 250 else 0)
    await observer.inbox.wait(len(sent))
    assert observer.inbox.payloads() == sent


async def test_a_burst_of_twenty_thousand_loses_nothing(connect: Connect) -> None:
    observer = await connect(Role.OBSERVER, "anyserve/c/event/+", qos=0)
    origin = await connect(Role.ORIGIN)
    for number in range(20_000):
        origin.bus.publish("anyserve/c/event/burst", b"%d" % number, qos=0)
        if number % 1000 == 0:
            await asyncio.sleep(0)  # a flush per turn, as the outbox does
    await observer.inbox.wait(20_000)
    assert observer.inbox.payloads() == [b"%d" % number for number in range(20_000)]
    assert origin.bus.stats.dropped_qos0 == 0


async def test_a_large_payload_arrives_whole(connect: Connect) -> None:
    replica = await connect(Role.REPLICA, "anyserve/c/replica/r1/entry")
    origin = await connect(Role.ORIGIN)
    payload = bytes(range(256)) * (10 * 2**20 // 256)
    origin.bus.publish("anyserve/c/replica/r1/entry", payload, qos=1)
    await replica.inbox.wait(1)
    assert replica.inbox.payloads() == [payload]


async def test_wildcards_reach_what_they_cover_and_nothing_else(connect: Connect) -> None:
    one_level = await connect(Role.SCHEDULER, "anyserve/c/replica/+/reg")
    everything = await connect(Role.OBSERVER, "anyserve/c/#")
    replica = await connect(Role.REPLICA)
    replica.bus.publish("anyserve/c/replica/r1/reg", b"a", qos=1)
    replica.bus.publish("anyserve/c/event/r1", b"b", qos=1)
    replica.bus.publish("anyserve/c/replica/r2/reg", b"c", qos=1)
    await everything.inbox.wait(3)
    await one_level.inbox.wait(2)
    assert sorted(everything.inbox.payloads()) == [b"a", b"b", b"c"]
    assert sorted(one_level.inbox.payloads()) == [b"a", b"c"]


async def test_retained_reaches_the_late_and_is_cleared_by_nothing(connect: Connect) -> None:
    topic = "anyserve/c/replica/r1/reg"
    replica = await connect(Role.REPLICA)
    early = await connect(Role.OBSERVER, topic)
    replica.bus.publish(topic, b"old", qos=1, retain=True)
    replica.bus.publish(topic, b"new", qos=1, retain=True)
    await early.inbox.wait(2)
    late = await connect(Role.SCHEDULER, "anyserve/c/replica/+/reg")
    await late.inbox.wait(1)
    assert late.inbox.messages == [(topic, b"new", True)]
    assert early.inbox.messages == [(topic, b"old", False), (topic, b"new", False)]

    replica.bus.publish(topic, b"", qos=1, retain=True)
    await early.inbox.wait(3)
    later = await connect(Role.SCHEDULER, "anyserve/c/replica/+/reg", "anyserve/c/sched/in")
    replica.bus.publish("anyserve/c/sched/in", b"mark", qos=1)
    await later.inbox.wait(1)
    assert later.inbox.payloads() == [b"mark"]


async def test_a_will_is_sent_after_a_drop_and_carries_its_connection(
    backend: Backend, connect: Connect
) -> None:
    will = Will("anyserve/c/replica/r1/gone", lambda number: b'[{"connection":%d}]' % number)
    scheduler = await connect(Role.SCHEDULER, "anyserve/c/replica/+/gone")
    replica = await connect(Role.REPLICA, will=will)
    backend.drop(replica.bus)
    await scheduler.inbox.wait(1)
    await replica.inbox.until(lambda: (True, 2) in replica.inbox.ups_and_downs)
    backend.drop(replica.bus)
    await scheduler.inbox.wait(2)
    assert scheduler.inbox.payloads() == [b'[{"connection":1}]', b'[{"connection":2}]']


async def test_no_will_is_sent_after_a_goodbye(connect: Connect) -> None:
    will = Will("anyserve/c/replica/r1/gone", lambda number: b"%d" % number)
    scheduler = await connect(Role.SCHEDULER, "anyserve/c/replica/+/gone", SCHED_IN)
    replica = await connect(Role.REPLICA, will=will)
    await replica.bus.close()
    origin = await connect(Role.ORIGIN)
    origin.bus.publish(SCHED_IN, b"mark", qos=1)
    await scheduler.inbox.wait(1)
    assert scheduler.inbox.payloads() == [b"mark"]


async def test_foreign_and_malformed_payloads_pass_as_they_are(connect: Connect) -> None:
    observer = await connect(Role.OBSERVER, "anyserve/c/event/+")
    origin = await connect(Role.ORIGIN)
    sent = [b"\xff\xfe\x00", b"{", b"null", b'"text"', b"[[]]"]
    for payload in sent:
        origin.bus.publish("anyserve/c/event/x", payload, qos=1)
    await observer.inbox.wait(len(sent))
    assert observer.inbox.payloads() == sent


async def test_a_callback_that_fails_costs_only_its_message(
    backend: Backend, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bytes] = []
    done = asyncio.Event()

    def fail_on_first(_topic: str, payload: bytes, _retain: bool) -> None:
        seen.append(payload)
        if payload == b"bad":
            raise ValueError("cannot read this")
        done.set()

    observer = backend.bus(Role.OBSERVER, fail_on_first)
    await observer.start()
    await observer.subscribe("anyserve/c/event/+", 1)
    origin = await connect(Role.ORIGIN)
    origin.bus.publish("anyserve/c/event/x", b"bad", qos=1)
    origin.bus.publish("anyserve/c/event/x", b"good", qos=1)
    async with asyncio.timeout(15):
        await done.wait()
    assert seen == [b"bad", b"good"]
    assert observer.stats.callback_errors == 1
    assert "anyserve/c/event/x was not handled" in caplog.text
    await observer.close()


async def test_unsubscribe_ends_delivery(connect: Connect) -> None:
    observer = await connect(Role.OBSERVER, "anyserve/c/event/a", "anyserve/c/event/b")
    origin = await connect(Role.ORIGIN)
    await observer.bus.unsubscribe("anyserve/c/event/a")
    origin.bus.publish("anyserve/c/event/a", b"unwanted", qos=1)
    origin.bus.publish("anyserve/c/event/b", b"wanted", qos=1)
    await observer.inbox.wait(1)
    assert observer.inbox.payloads() == [b"wanted"]


async def test_starting_without_a_broker_names_it(backend: Backend) -> None:
    await backend.kill()
    bus = backend.bus(Role.ORIGIN, lambda _topic, _payload, _retain: None)
    with pytest.raises(StartError, match="broker") as caught:
        await bus.start()
    assert caught.value.code == "broker_unreachable"
    await bus.close()
