"""A connection that is cut, disturbed, or asked how far the broker is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from anyserve.runtime import disturbing
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Will
from anyserve.runtime.bus.disturbance import Disturbance
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.disturbing import Disturber
from anyserve.runtime.node_control import ConnectionFault

if TYPE_CHECKING:
    from tests.integration.conftest import Backend, Connect

IN = "anyserve/c/sched/in"
GONE = "anyserve/c/replica/s1/gone"


def mqtt(bus: object) -> MqttBus:
    if not isinstance(bus, MqttBus):
        pytest.skip("the bus in memory has no network to fail")
    return bus


async def test_a_cut_connection_leaves_its_will_and_comes_back_when_it_is_mended(
    backend: Backend, connect: Connect
) -> None:
    del backend
    scheduler = await connect(Role.SCHEDULER, IN, "anyserve/c/replica/+/gone")
    will = Will(GONE, lambda number: b"gone %d" % number)
    replica = await connect(Role.REPLICA, will=will)
    bus = mqtt(replica.bus)
    assert (await bus.round_trip() or 0) > 0

    bus.cut()
    await scheduler.inbox.until(lambda: scheduler.inbox.payloads(GONE) == [b"gone 1"])
    await replica.inbox.until(lambda: replica.inbox.ups_and_downs[-1] == (False, 1))
    assert await bus.round_trip() is None
    bus.publish(IN, b"kept", qos=1)
    bus.cut()
    assert not bus.connected

    bus.uncut()
    await scheduler.inbox.until(lambda: scheduler.inbox.payloads(IN) == [b"kept"])
    assert bus.connection == 2
    assert scheduler.inbox.payloads(GONE) == [b"gone 1"]


async def test_a_partition_holds_messages_and_is_given_up_after_a_while(
    backend: Backend, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    del backend
    to_replica = "anyserve/c/replica/s1/in"
    scheduler = await connect(Role.SCHEDULER, IN, "anyserve/c/replica/+/gone")
    replica = await connect(
        Role.REPLICA, to_replica, will=Will(GONE, lambda number: b"gone %d" % number)
    )
    bus = mqtt(replica.bus)
    disturber = Disturber(bus, random.Random(1))

    # A short one delays: nothing is lost, nothing overtakes.
    disturber.act(ConnectionFault(kind="partition"))
    bus.publish(IN, b"1", qos=1)
    bus.publish(IN, b"2", qos=1)
    bus.publish("anyserve/c/event/s1", b"spared", qos=0)
    disturber.act(ConnectionFault(kind="partition", on=False))
    bus.publish(IN, b"3", qos=1)
    await scheduler.inbox.until(lambda: scheduler.inbox.payloads(IN) == [b"1", b"2", b"3"])
    assert (bus.connection, scheduler.inbox.payloads(GONE)) == (1, [])

    # A longer one is given up by both ends.
    monkeypatch.setattr(disturbing, "GIVE_UP_S", 0.05)
    disturber.act(ConnectionFault(kind="partition"))
    bus.publish(IN, b"4", qos=1)
    await scheduler.inbox.until(lambda: scheduler.inbox.payloads(GONE) == [b"gone 1"])
    assert scheduler.inbox.payloads(IN) == [b"1", b"2", b"3"]
    disturber.act(ConnectionFault(kind="partition", on=False))
    await scheduler.inbox.until(lambda: scheduler.inbox.payloads(IN)[-1] == b"4")
    assert bus.connection == 2


async def test_a_disturbed_connection_loses_and_doubles_in_both_directions(
    backend: Backend, connect: Connect
) -> None:
    del backend
    to_replica = "anyserve/c/replica/s1/in"
    scheduler = await connect(Role.SCHEDULER, IN)
    replica = await connect(Role.REPLICA, to_replica)
    bus = mqtt(replica.bus)
    disturbance = Disturbance(random.Random(1))
    bus.disturb(disturbance)

    disturbance.drop = 1.0
    bus.publish(IN, b"lost", qos=1)
    disturbance.drop, disturbance.duplicate = 0.0, 1.0
    bus.publish(IN, b"twice", qos=1)
    scheduler.bus.publish(to_replica, b"back", qos=1)
    await scheduler.inbox.until(lambda: scheduler.inbox.payloads(IN) == [b"twice"] * 2)
    await replica.inbox.until(lambda: replica.inbox.payloads(to_replica) == [b"back"] * 2)

    bus.disturb(None)
    bus.publish(IN, b"once", qos=1)
    await scheduler.inbox.until(lambda: b"once" in scheduler.inbox.payloads(IN))
    assert scheduler.inbox.payloads(IN) == [b"twice", b"twice", b"once"]
