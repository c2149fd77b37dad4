"""What goes over the broker: who may say what to whom, and what becomes of foreign messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from live import LiveCluster, Watcher, draft, outcome, tokens_came, two_rungs

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import AttemptEnded, BusTrouble, Envelope, RequestOutcome
from anyserve.core.messages import (
    Assign,
    AttemptStatus,
    Cancel,
    Control,
    Credit,
    Ended,
    Entry,
    Frame,
    KeepAlive,
    Message,
    Repair,
    Request,
    Settled,
    Submit,
    UnknownAttempt,
)
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.origin import OriginClient

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

REPLICA_SAYS = {
    "sched/in": {
        "delegate",
        "refuse",
        "return",
        "credit",
        "holding",
        "admitted",
        "started",
        "ended",
    },
    "origin/+/in": {"frame", "keep_alive", "rejected", "attempt_lost", "unknown_attempt"},
    "replica/+/reg": {"registration"},
    "replica/+/gone": {"gone"},
}
OTHERS_SAY = {
    "sched/in": {"submit", "cancel", "settled", "operate"},
    "sched/state": {"scheduler_state"},
    "replica/+/in": {"assign", "entry", "cancel_attempt", "yield", "control", "stale_epoch"},
    "replica/+/entry": {"entry", "cancel", "settled", "repair"},
    "origin/+/in": {"accepted", "rejected", "attempt_lost", "stale_epoch"},
    "origin/+/gone": {"gone"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LiveCluster]:
    live = await LiveCluster(two_rungs()).up()
    yield live
    await live.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(cluster: LiveCluster) -> OriginClient:
    return await cluster.origin()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def voices(cluster: LiveCluster) -> AsyncIterator[dict[Role, MqttBus]]:
    """A connection of each role that may speak."""
    speaking = (Role.SCHEDULER, Role.REPLICA, Role.ORIGIN)
    buses = {role: await cluster.bus(role) for role in speaking}
    yield buses
    for bus in buses.values():
        await bus.close()


class Said(msgspec.Struct, frozen=True):
    """The part that all messages share."""

    type: str
    v: int
    replica: str | None = None


def place(prefix: str, topic: str) -> str:
    """A topic as the tables above write it."""
    levels = topic.removeprefix(f"{prefix}/").split("/")
    if len(levels) == 3:
        levels[1] = "+"
    return "/".join(levels)


def conversation(watcher: Watcher, since: int = 0) -> list[tuple[str, Said]]:
    """Every message but events and proofs of permission, by its place."""
    return [
        (place(watcher.prefix, topic), said)
        for topic, payload in watcher.messages[since:]
        if "/event/" not in topic and "proof-" not in topic
        for said in msgspec.json.decode(payload, type=list[Said])
    ]


async def work(cluster: LiveCluster, origin: OriginClient) -> None:
    """A little of everything: served, delegated, cancelled, rejected."""
    cancelled = origin.offer(draft("decode.heavy", tokens=800, entry="s1"), streamed=True)
    await tokens_came(cancelled, 2)
    handles = [
        origin.offer(draft("decode", entry="s1")),
        origin.offer(draft("decode")),
        origin.offer(draft("decode.heavy", entry="s1")),
        origin.offer(draft("nothing")),
    ]
    origin.cancel(cancelled.id)
    await asyncio.gather(*map(outcome, handles))
    await cluster.watcher.event(AttemptEnded, id=cancelled.id)
    for handle in (*handles, cancelled):
        await cluster.watcher.event(RequestOutcome, id=handle.id)


async def test_nothing_goes_from_replica_to_replica(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    since = len(cluster.watcher.messages)
    await work(cluster, origin)
    heard = conversation(cluster.watcher, since)
    others = {kind for kinds in OTHERS_SAY.values() for kind in kinds}
    only_replicas = {kind for kinds in REPLICA_SAYS.values() for kind in kinds} - others
    assert {"delegate", "credit", "admitted", "frame"} <= {said.type for _, said in heard}
    for where, said in heard:
        allowed = REPLICA_SAYS.get(where, set()) | OTHERS_SAY.get(where, set())
        assert said.type in allowed, (where, said)
        if said.type in only_replicas or (said.replica is not None and said.type != "operate"):
            assert where in REPLICA_SAYS, (where, said)


async def test_every_message_has_a_version_and_every_event_its_own_source(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    since = len(cluster.watcher.messages)
    await work(cluster, origin)
    assert {said.v for _, said in conversation(cluster.watcher, since)} == {1}
    sources = set()
    for topic, payload in cluster.watcher.messages[since:]:
        if "/event/" in topic and "proof-" not in topic:
            source = topic.rpartition("/")[2]
            said = msgspec.json.decode(payload, type=list[Envelope])
            assert {one.source for one in said} == {source}
            sources.add(source)
    assert {"scheduler", "s1", "h1", origin.name} <= sources


def encoded(*messages: Message) -> bytes:
    return msgspec.json.encode(messages)


REQUEST = Request(
    id="o99/1/1", asked="decode", capability="decode", prompt_tokens=1, max_tokens=1, offered_ns=1
)


async def test_what_a_replica_says_to_another_never_arrives(
    cluster: LiveCluster, origin: OriginClient, voices: dict[Role, MqttBus]
) -> None:
    prefix, bus = cluster.watcher.prefix, voices[Role.REPLICA]
    since = len(cluster.watcher.messages)
    assign = Assign(request=REQUEST, attempt=1, submission=1, incarnation=1, epoch=1, ordinal=1)
    for qos in (0, 1):
        bus.publish(f"{prefix}/replica/h1/in", encoded(Control(action="drain")), qos=qos)
        bus.publish(f"{prefix}/replica/h1/in", encoded(assign), qos=qos)
        bus.publish(f"{prefix}/replica/h1/entry", encoded(Cancel(id=REQUEST.id)), qos=qos)
    bus.publish(f"{prefix}/event/marker", b"[]", qos=1)
    await cluster.watcher.until(
        lambda: any(
            topic.endswith("/event/marker") for topic, _ in cluster.watcher.messages[since:]
        )
    )
    foreign = [
        topic
        for topic, payload in cluster.watcher.messages[since:]
        if "/replica/h1/" in topic and (b"drain" in payload or b"o99/" in payload)
    ]
    assert foreign == []
    end = await outcome(origin.offer(draft("decode.heavy")))  # it does not drain
    assert (end.kind, end.served_by) == (OutcomeKind.COMPLETED, "h1")


def speaker_of(topic: str) -> Role:
    """Who may publish there."""
    if topic in {"sched/state", "replica/s1/in"}:
        return Role.SCHEDULER
    if topic in {"replica/s1/entry", "origin/o1/gone"}:
        return Role.ORIGIN
    return Role.REPLICA


HEARD_BY = {
    "sched/in": "scheduler",
    "replica/s1/reg": "scheduler",
    "replica/s1/gone": "scheduler",
    "origin/o1/gone": "scheduler",
    "replica/s1/in": "s1",
    "replica/s1/entry": "s1",
}
GARBAGE = [
    b"\xff\xfe\x00",
    b"23.5",
    b'{"temperature": 23.5}',
    b"[",
    b"[" * 5000,
    b'[{"type":"frame"}]',
    b'[{"type":"of tomorrow","v":9}, null]',
    b'[{"type":"submit","v":1,"request":{"id":7}}]',
]
ELEMENTS = 9
"""Whole payloads that are no list, and elements of those that are."""


async def all_counted(cluster: LiveCluster, mark: int, source: str, number: int) -> None:
    """So many messages were counted as malformed; QoS 1 may bring one of them twice."""

    def counted() -> int:
        return sum(
            one.event.count
            for one in cluster.watcher.events[mark:]
            if isinstance(one.event, BusTrouble)
            and (one.source, one.event.kind) == (source, "malformed")
        )

    await cluster.watcher.until(lambda: counted() >= number, f"{number} malformed at {source}")


@pytest.mark.parametrize("topic", HEARD_BY)
async def test_malformed_messages_are_counted_and_ignored(
    cluster: LiveCluster, origin: OriginClient, voices: dict[Role, MqttBus], topic: str
) -> None:
    mark = cluster.watcher.mark()
    for payload in GARBAGE:
        voices[speaker_of(topic)].publish(f"{cluster.watcher.prefix}/{topic}", payload, qos=1)
    await all_counted(cluster, mark, HEARD_BY[topic], ELEMENTS)
    for entry in ("scheduler", "s1"):
        end = await outcome(origin.offer(draft("decode.heavy", entry=entry)))
        assert end.kind is OutcomeKind.COMPLETED


async def test_everybody_counts_what_is_malformed_in_the_state_of_the_scheduler(
    cluster: LiveCluster, origin: OriginClient, voices: dict[Role, MqttBus]
) -> None:
    mark = cluster.watcher.mark()
    for payload in GARBAGE:
        topic = f"{cluster.watcher.prefix}/sched/state"
        voices[Role.SCHEDULER].publish(topic, payload, qos=1)
    await cluster.watcher.until(
        lambda: (
            {"s1", "h1", origin.name}
            <= {
                one.source
                for one in cluster.watcher.events[mark:]
                if isinstance(one.event, BusTrouble) and one.event.kind == "malformed"
            }
        ),
        "malformed at s1, h1 and the origin",
    )
    assert (await outcome(origin.offer(draft("decode")))).kind is OutcomeKind.COMPLETED


async def test_garbage_among_good_messages_costs_only_itself(
    cluster: LiveCluster, origin: OriginClient, voices: dict[Role, MqttBus]
) -> None:
    """In one list with the cancel of a running request."""
    handle = origin.offer(draft("decode.heavy", tokens=1500), streamed=True)
    await tokens_came(handle, 2)
    good = msgspec.json.encode(Cancel(id=handle.id))
    topic = f"{cluster.watcher.prefix}/sched/in"
    voices[Role.ORIGIN].publish(topic, b'[{"type":"x"},' + good + b",7]", qos=1)
    ended = await cluster.watcher.event(AttemptEnded, id=handle.id)
    assert ended.status == "cancelled"
    assert (await outcome(handle)).kind is OutcomeKind.CANCELLED


UNSOUND_CREDIT = Credit(
    replica="#",
    incarnation=1,
    epoch=0,
    sequence=1,
    granted_total=1,
    taken_total=0,
    assigned_seen=0,
)
UNSOUND = {
    "sched/in": [
        Cancel(id="no slashes"),
        Cancel(id="a/b/c"),
        Settled(origin="o1", incarnation=1, ids=["x"]),
        Settled(origin="+", incarnation=1, ids=[]),
        Submit(request=msgspec.structs.replace(REQUEST, id="x"), epoch=1),
        Submit(request=msgspec.structs.replace(REQUEST, id="+/1/1"), epoch=1),
        UNSOUND_CREDIT,
        Ended(
            id="o1/1/1",
            attempt=1,
            replica="s1",
            incarnation=1,
            status=AttemptStatus.COMPLETED,
            credit=UNSOUND_CREDIT,
        ),
    ],
    "replica/s1/entry": [
        Cancel(id="no slashes"),
        Settled(origin="o1", incarnation=1, ids=["x"]),
        Entry(request=msgspec.structs.replace(REQUEST, id="#/1/1")),
        Repair(id="+/1/1", attempt=1, sequence=0),
    ],
    "origin/o1/in": [
        Frame(id="?", attempt=1, submission=1, replica="s1", incarnation=1, sequence=0),
        KeepAlive(replica="s1", incarnation=1, held=[("x", 1)]),
        UnknownAttempt(id="o1/1/1", attempt=1, replica="a/b"),
    ],
}


@pytest.mark.parametrize("topic", UNSOUND)
async def test_impossible_names_are_counted_and_ignored(
    cluster: LiveCluster, origin: OriginClient, voices: dict[Role, MqttBus], topic: str
) -> None:
    """An answer to an origin called `+` would be published to a wildcard: brokers hang up then."""
    role = Role.REPLICA if topic == "origin/o1/in" else Role.ORIGIN
    mark = cluster.watcher.mark()
    beside = origin.offer(draft("decode.heavy", entry="s1"))
    voices[role].publish(f"{cluster.watcher.prefix}/{topic}", encoded(*UNSOUND[topic]), qos=1)
    await all_counted(cluster, mark, {**HEARD_BY, "origin/o1/in": "o1"}[topic], len(UNSOUND[topic]))
    assert (await outcome(beside)).kind is OutcomeKind.COMPLETED
    for entry in ("scheduler", "s1"):
        end = await outcome(origin.offer(draft("decode.heavy", entry=entry)))
        assert end.kind is OutcomeKind.COMPLETED
    assert cluster.watcher.find(BusTrouble, since=mark, kind="disconnected") == []
