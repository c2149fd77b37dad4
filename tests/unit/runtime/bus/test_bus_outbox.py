"""Every payload is a list: how lists are filled, split, sent and read."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyserve.errors import ProtocolError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.memory import MemoryBroker, MemoryBus
from anyserve.runtime.bus.outbox import BatchReader, Outbox, decode_batch

ENCODE = msgspec.json.Encoder().encode


class RecordingBus(MemoryBus):
    """An unconnected bus that writes down what it is asked to publish."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker(), Role.ORIGIN, on_message=lambda _t, _p, _r: None)
        self.published: list[tuple[str, bytes, int, bool]] = []

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> None:
        self.published.append((topic, payload, qos, retain))


async def test_a_turn_of_the_loop_is_one_message_per_topic() -> None:
    bus = RecordingBus()
    outbox = Outbox(bus, ENCODE)
    for number in range(3):
        outbox.put("a", {"n": number}, qos=0)
        outbox.put("b", number, qos=1)
    assert bus.published == []
    await asyncio.sleep(0)
    outbox.put("a", b'"encoded already"', qos=0)
    await asyncio.sleep(0)
    assert bus.published == [
        ("a", b'[{"n":0},{"n":1},{"n":2}]', 0, False),
        ("b", b"[0,1,2]", 1, False),
        ("a", b'["encoded already"]', 0, False),
    ]


async def test_a_list_travels_with_the_highest_qos_in_it() -> None:
    bus = RecordingBus()
    outbox = Outbox(bus, ENCODE)
    outbox.put("origin/o1/in", "frame", qos=0)
    outbox.put("origin/o1/in", "terminal", qos=1)
    outbox.flush()
    assert bus.published == [("origin/o1/in", b'["frame","terminal"]', 1, False)]
    await asyncio.sleep(0)
    assert len(bus.published) == 1


async def test_retained_and_passing_messages_do_not_mix() -> None:
    bus = RecordingBus()
    outbox = Outbox(bus, ENCODE)
    outbox.put("reg", 1, qos=1, retain=True)
    outbox.put("reg", 2, qos=1)
    outbox.clear("reg")
    assert bus.published == [
        ("reg", b"[1]", 1, True),
        ("reg", b"[2]", 1, False),
        ("reg", b"", 1, True),
    ]


async def test_a_message_too_large_for_the_broker_is_refused_where_it_is_put() -> None:
    bus = RecordingBus()
    outbox = Outbox(bus, ENCODE, max_payload_bytes=4096)
    with pytest.raises(ProtocolError) as caught:
        outbox.put("a", "x" * 4000, qos=1)
    assert caught.value.code == "message_too_large"
    outbox.put("a", "x" * 3000, qos=1)  # over half, but it fits alone
    outbox.put("a", "y", qos=1)
    outbox.flush()
    assert [len(payload) for _, payload, _, _ in bus.published] == [3004, 5]


@given(st.lists(st.text(max_size=300), max_size=60))
def test_splitting_keeps_order_and_stays_below_half(messages: list[str]) -> None:
    async def send() -> list[bytes]:
        bus = RecordingBus()
        outbox = Outbox(bus, ENCODE, max_payload_bytes=8192)
        for message in messages:
            outbox.put("a", message, qos=1)
        outbox.flush()
        return [payload for _, payload, _, _ in bus.published]

    payloads = asyncio.run(send())
    assert all(len(payload) <= 4096 for payload in payloads)
    assert [m for payload in payloads for m in msgspec.json.decode(payload)] == messages


class Ping(msgspec.Struct, tag="ping"):
    n: int


class Pong(msgspec.Struct, tag="pong"):
    n: int


def reader() -> BatchReader[Ping | Pong]:
    return BatchReader(Ping | Pong)


def test_a_good_list_is_read_whole() -> None:
    box = reader()
    payload = b'[{"type":"ping","n":1,"new_field":0},{"type":"pong","n":2}]'
    assert box.read("t", payload) == [Ping(1), Pong(2)]
    assert box.malformed == 0


def test_one_bad_element_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    box = reader()
    bad = b'{"type":"unknown"},{"type":"pong","n":"x"},7'
    payload = b'[{"type":"ping","n":1},%b,{"type":"pong","n":2}]' % bad
    with caplog.at_level(logging.WARNING):
        assert box.read("sched/in", payload) == [Ping(1), Pong(2)]
    assert box.malformed == 3
    assert "sched/in" in caplog.text


@pytest.mark.parametrize("payload", [b"{", b"null", b'{"type":"ping"}', b"\xff\xfe", b"[1,"])
def test_a_payload_that_is_no_list_is_counted_once(payload: bytes) -> None:
    box = reader()
    assert box.read("t", payload) == []
    assert box.malformed == 1
    with pytest.raises(ProtocolError):
        decode_batch(payload)


def test_a_cleared_retained_message_has_nothing_in_it() -> None:
    box = reader()
    assert box.read("t", b"") == []
    assert box.malformed == 0


def test_a_flood_of_malformed_messages_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    box = reader()
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            box.read("t", b"nonsense")
    assert box.malformed == 1000
    assert len(caplog.records) == 10


@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_the_reader_fail(payload: bytes) -> None:
    box = reader()
    assert all(isinstance(message, Ping | Pong) for message in box.read("t", payload))
