"""The access rules, enforced by each broker, and the proof that finds them broken."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from anyserve.errors import StartError
from anyserve.runtime.broker.acl import ROLE_RULES, AccessRules
from anyserve.runtime.broker.proof import measure_round_trips, prove_permissions
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Will

if TYPE_CHECKING:
    from tests.integration.conftest import Backend, Connect

DENIED = [
    (Role.REPLICA, "replica/r2/in"),
    (Role.REPLICA, "replica/r2/entry"),
    (Role.REPLICA, "sched/state"),
    (Role.REPLICA, "origin/o1/gone"),
    (Role.ORIGIN, "replica/r2/in"),
    (Role.ORIGIN, "replica/r2/reg"),
    (Role.ORIGIN, "origin/o2/in"),
    (Role.SCHEDULER, "sched/in"),
    (Role.SCHEDULER, "replica/r2/reg"),
    (Role.OBSERVER, "sched/in"),
    (Role.OBSERVER, "event/o1"),
    (Role.OBSERVER, "replica/r2/in"),
]


@pytest.mark.parametrize("qos", [0, 1])
async def test_what_a_role_may_not_publish_never_arrives(connect: Connect, qos: int) -> None:
    watcher = await connect(Role.OBSERVER, "anyserve/#")
    clients = {role: await connect(role) for role in Role}
    for role, topic in DENIED:
        clients[role].bus.publish(f"anyserve/c/{topic}", b"forbidden", qos=qos)
        clients[role].bus.publish(f"anyserve/c/{topic}", b"forbidden", qos=qos, retain=True)
        await clients[role].bus.drain(5)
    for role in (Role.SCHEDULER, Role.REPLICA, Role.ORIGIN):
        # QoS 1: mosquitto 2.0.11 hangs up on a client whose QoS 0 message it denies.
        clients[role].bus.publish(f"anyserve/c/event/{role}", b"mark", qos=1)
    await watcher.inbox.wait(3)
    assert watcher.inbox.payloads() == [b"mark"] * 3
    late = await connect(Role.OBSERVER, "anyserve/#")
    clients[Role.ORIGIN].bus.publish("anyserve/c/event/o", b"mark", qos=1)
    await late.inbox.wait(1)
    assert late.inbox.payloads() == [b"mark"]  # nothing forbidden was retained either


async def test_what_a_role_may_not_read_never_reaches_it(connect: Connect) -> None:
    replica = await connect(Role.REPLICA, "anyserve/c/sched/state")
    for forbidden in ("anyserve/c/sched/in", "anyserve/c/origin/+/in", "anyserve/c/#"):
        try:
            await replica.bus.subscribe(forbidden, 1)
        except StartError as denied:  # nats says so, mosquitto only delivers nothing
            assert forbidden in denied.message  # noqa: PT017 - not every broker raises
    scheduler = await connect(Role.SCHEDULER)
    origin = await connect(Role.ORIGIN)
    origin.bus.publish("anyserve/c/sched/in", b"secret", qos=1)
    scheduler.bus.publish("anyserve/c/origin/o1/in", b"secret", qos=1)
    assert await origin.bus.drain(5)
    assert await scheduler.bus.drain(5)
    scheduler.bus.publish("anyserve/c/sched/state", b"mark", qos=1)
    await replica.inbox.wait(1)
    assert replica.inbox.payloads() == [b"mark"]


async def test_a_will_and_a_retained_message_pass_the_rules(
    backend: Backend, connect: Connect
) -> None:
    topics = ("anyserve/c/replica/+/reg", "anyserve/c/replica/+/gone")
    scheduler = await connect(Role.SCHEDULER, *topics)
    will = Will("anyserve/c/replica/r1/gone", lambda _number: b"gone")
    replica = await connect(Role.REPLICA, will=will)
    replica.bus.publish("anyserve/c/replica/r1/reg", b"here", qos=1, retain=True)
    await scheduler.inbox.wait(1)
    assert await replica.bus.drain(5)
    backend.drop(replica.bus)
    await scheduler.inbox.wait(2)
    assert scheduler.inbox.payloads() == [b"here", b"gone"]


async def test_every_role_proves_its_permissions(backend: Backend, connect: Connect) -> None:
    for role in Role:
        client = await connect(role)
        assert await prove_permissions(client.bus, backend.rules, role) >= 0
        assert client.inbox.messages == []


async def test_proofs_of_others_never_reach_the_owner(backend: Backend, connect: Connect) -> None:
    scheduler = await connect(
        Role.SCHEDULER, "anyserve/c/replica/+/reg", "anyserve/c/replica/+/gone"
    )
    first, second = await connect(Role.REPLICA), await connect(Role.REPLICA)
    await prove_permissions(first.bus, backend.rules, Role.REPLICA)
    await prove_permissions(second.bus, backend.rules, Role.REPLICA)
    second.bus.publish("anyserve/c/replica/r2/reg", b"real", qos=1)
    await scheduler.inbox.wait(1)
    assert scheduler.inbox.payloads() == [b"real"]
    assert scheduler.bus.stats.foreign_proofs == 4


async def test_round_trips_are_measured(backend: Backend, connect: Connect) -> None:
    client = await connect(Role.REPLICA)
    times_s = await measure_round_trips(client.bus, backend.rules, Role.REPLICA, count=3)
    assert len(times_s) == 3


class TestBrokenRules:
    """Rules that an administrator got wrong are named before any request is lost to them."""

    @pytest.fixture
    def rules(self) -> AccessRules:
        good = ROLE_RULES[Role.REPLICA]
        kept = tuple(p for p in good.publish if p not in {"origin/+/in", "+/in"})
        broken = {**ROLE_RULES, Role.REPLICA: replace(good, publish=(*kept, "sched/in"))}
        return AccessRules("c", MappingProxyType(broken))

    async def test_the_proof_names_each_denied_topic(
        self, backend: Backend, connect: Connect
    ) -> None:
        replica = await connect(Role.REPLICA)
        with pytest.raises(StartError) as caught:
            await prove_permissions(replica.bus, backend.rules, Role.REPLICA, timeout_s=0.3)
        assert caught.value.code == "broker_permission"
        assert "anyserve/c/+/in, anyserve/c/origin/+/in" in caught.value.message
        assert "reg" not in caught.value.message

    async def test_other_roles_still_prove_theirs(self, backend: Backend, connect: Connect) -> None:
        scheduler = await connect(Role.SCHEDULER)
        await prove_permissions(scheduler.bus, backend.rules, Role.SCHEDULER)
        assert scheduler.bus.connected
