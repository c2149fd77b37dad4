"""A connection that is cut, disturbed, or asked how far the broker is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Will
from anyserve.runtime.bus.disturbance import Disturbance
from anyserve.runtime.bus.mqtt import MqttBus

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
