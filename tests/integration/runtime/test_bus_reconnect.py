"""What a bus promises when its connection or its broker goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyserve.runtime.bus.address import Role

if TYPE_CHECKING:
    from tests.integration.conftest import Backend, Connect

SCHED_IN = "anyserve/c/sched/in"


async def test_a_dropped_bus_comes_back_with_its_subscriptions(
    backend: Backend, connect: Connect
) -> None:
    scheduler = await connect(Role.SCHEDULER, SCHED_IN)
    origin = await connect(Role.ORIGIN)
    backend.drop(scheduler.bus)
    await scheduler.inbox.until(lambda: (True, 2) in scheduler.inbox.ups_and_downs)
    origin.bus.publish(SCHED_IN, b"again", qos=1)
    await scheduler.inbox.wait(1)
    assert scheduler.inbox.ups_and_downs == [(True, 1), (False, 1), (True, 2)]
    assert scheduler.inbox.payloads() == [b"again"]
    assert scheduler.bus.connection == 2
    assert scheduler.bus.stats.reconnects == 1


async def test_qos_1_outlives_the_broker_and_qos_0_does_not(
    backend: Backend, connect: Connect
) -> None:
    scheduler = await connect(Role.SCHEDULER, SCHED_IN)
    origin = await connect(Role.ORIGIN)
    await backend.kill()
    await origin.inbox.until(lambda: (False, 1) in origin.inbox.ups_and_downs)
    await scheduler.inbox.until(lambda: (False, 1) in scheduler.inbox.ups_and_downs)
    assert not origin.bus.connected
    origin.bus.publish(SCHED_IN, b"lost", qos=0)
    sent = [b"%d" % number for number in range(300)]
    await backend.restart()
    # The subscriber first: sessions are clean, what is published while it is away passes it by.
    await scheduler.inbox.until(lambda: scheduler.bus.connected)
    for payload in sent:
        origin.bus.publish(SCHED_IN, payload, qos=1)
    await scheduler.inbox.wait(len(sent))
    assert scheduler.inbox.payloads() == sent
    assert origin.bus.stats.dropped_qos0 == 1
    assert await origin.bus.drain(5)


async def test_a_kill_amid_traffic_loses_no_qos_1_message_of_the_publisher(
    backend: Backend, connect: Connect
) -> None:
    origin = await connect(Role.ORIGIN)
    sent = [b"%d" % number for number in range(400)]
    for payload in sent[:200]:
        origin.bus.publish(SCHED_IN, payload, qos=1)
    await backend.kill()
    for payload in sent[200:]:
        origin.bus.publish(SCHED_IN, payload, qos=1)
    assert not await origin.bus.drain(0.01) or origin.bus.stats.acknowledged == len(sent)
    await backend.restart()
    assert await origin.bus.drain(10)
    # Acknowledged, each of them, by a broker: that is all a publisher can know.
    assert origin.bus.stats.acknowledged == len(sent)
    assert origin.bus.stats.outgoing_backlog_bytes == 0


async def test_the_owner_may_publish_when_it_hears_of_the_connection(
    backend: Backend, connect: Connect
) -> None:
    scheduler = await connect(Role.SCHEDULER, "anyserve/c/replica/+/reg")

    def register(up: bool, connection: int) -> None:
        if up:
            replica.publish("anyserve/c/replica/r1/reg", b"%d" % connection, qos=1, retain=True)

    replica = backend.bus(
        Role.REPLICA, lambda _topic, _payload, _retain: None, on_connection=register
    )
    await replica.start()
    await scheduler.inbox.wait(1)
    # Delivered is not acknowledged: a message in between would rightly be sent once more.
    assert await replica.drain(5)
    backend.drop(replica)
    await scheduler.inbox.wait(2)
    assert scheduler.inbox.payloads() == [b"1", b"2"]
    await replica.close()


async def test_closing_while_the_broker_is_away_ends_at_once(
    backend: Backend, connect: Connect
) -> None:
    origin = await connect(Role.ORIGIN)
    await backend.kill()
    await origin.inbox.until(lambda: (False, 1) in origin.inbox.ups_and_downs)
    await origin.bus.close()
    assert not origin.bus.connected
    await backend.restart()
    other = await connect(Role.ORIGIN)
    assert other.bus.connected
