"""Every payload on the wire is a list: the outbox writes them, `BatchReader` reads them.

The cost of the bus is per message, not per byte. What a process says on one topic within one turn
of its event loop therefore leaves as one message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec

from anyserve.errors import ProtocolError
from anyserve.runtime.bus.base import Bus

_LOG = logging.getLogger(__name__)
MAX_PAYLOAD_BYTES: Final = 16 * 2**20
_HEADROOM_BYTES: Final = 1024  # topic, packet header, brackets
LAZY_S: Final = 0.04
"""How long a lazy message waits for company; well below the first repetition of an end."""

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no message; the last one for absurd nesting."""

T = TypeVar("T")


class _Batch:
    """What waits for one topic until the end of the turn."""

    __slots__ = ("lazy", "parts", "qos", "retain", "size")

    def __init__(self, *, retain: bool) -> None:
        self.lazy = True
        self.parts: list[bytes] = []
        self.size = 2
        self.qos = 0
        self.retain = retain


class Outbox:
    """Collects messages per topic and publishes each topic's list once per event-loop turn.

    Order is kept within a topic. A list is sent with the highest QoS of its messages. Lists stay
    below half of the broker's maximum payload; a single larger message travels alone. A lazy
    message waits up to `LAZY_S` for another one of its topic to travel with.
    """

    def __init__(
        self,
        bus: Bus,
        encode: Callable[[Any], bytes],
        *,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._bus = bus
        self._encode = encode
        self._batches: dict[str, _Batch] = {}
        self._scheduled = False
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._split_bytes = max_payload_bytes // 2
        self._limit_bytes = max_payload_bytes - _HEADROOM_BYTES

    def put(
        self, topic: str, message: Any, *, qos: int, retain: bool = False, lazy: bool = False
    ) -> None:
        """Add one message (an object for `encode`, or its JSON as bytes) to its topic's list.

        Raises:
            ProtocolError: the message alone is larger than the broker takes.
        """
        encoded = message if isinstance(message, bytes) else self._encode(message)
        if len(encoded) > self._limit_bytes:
            text = f"a message of {len(encoded)} bytes for {topic} is over {self._limit_bytes}"
            raise ProtocolError(text, code="message_too_large")
        batch = self._batches.get(topic)
        if batch is not None and not self._fits(batch, encoded, retain=retain):
            self._publish(topic, batch)
            batch = None
        if batch is None:
            batch = self._batches[topic] = _Batch(retain=retain)
        batch.parts.append(encoded)
        batch.size += len(encoded) + 1
        batch.qos = max(batch.qos, qos)
        if not lazy:
            batch.lazy = False
            if not self._scheduled:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._flush_urgent)
        elif self._lazy_timer is None:
            self._lazy_timer = asyncio.get_running_loop().call_later(LAZY_S, self.flush)

    def clear(self, topic: str) -> None:
        """Remove the retained message of a topic, after what already waits for that topic."""
        batch = self._batches.pop(topic, None)
        if batch is not None:
            self._publish(topic, batch)
        self._bus.publish(topic, b"", qos=1, retain=True)

    def flush(self) -> None:
        """Publish what waits now, lazy or not."""
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        batches, self._batches = self._batches, {}
        for topic, batch in batches.items():
            self._publish(topic, batch)

    def _flush_urgent(self) -> None:
        self._scheduled = False
        for topic in [topic for topic, batch in self._batches.items() if not batch.lazy]:
            self._publish(topic, self._batches.pop(topic))

    def _fits(self, batch: _Batch, encoded: bytes, *, retain: bool) -> bool:
        return batch.retain == retain and batch.size + len(encoded) < self._split_bytes

    def _publish(self, topic: str, batch: _Batch) -> None:
        payload = b"[" + b",".join(batch.parts) + b"]"
        self._bus.publish(topic, payload, qos=batch.qos, retain=batch.retain)


def decode_batch(payload: bytes) -> list[msgspec.Raw]:
    """Split a payload into its elements without reading them.

    Raises:
        ProtocolError: the payload is not a JSON list.
    """
    try:
        return msgspec.json.decode(payload, type=list[msgspec.Raw])
    except _UNREADABLE as error:
        raise ProtocolError(f"not a list of messages: {error}", code="malformed_batch") from None


class BatchReader(Generic[T]):
    """Decodes lists of one message type (a union, say); what is malformed is counted and logged.

    One bad element costs only itself. `malformed` counts elements and whole payloads alike.
    """

    def __init__(self, message_type: Any) -> None:
        self._whole: msgspec.json.Decoder[list[T]] = msgspec.json.Decoder(list[message_type])
        self._single: msgspec.json.Decoder[T] = msgspec.json.Decoder(message_type)
        self.malformed = 0

    def read(self, topic: str, payload: bytes) -> list[T]:
        """The messages of a payload; an empty payload (a cleared retained message) has none."""
        if not payload:
            return []
        try:
            return self._whole.decode(payload)
        except _UNREADABLE:
            return self._read_each(topic, payload)

    def _read_each(self, topic: str, payload: bytes) -> list[T]:
        try:
            elements = decode_batch(payload)
        except ProtocolError as error:
            self._count(topic, error)
            return []
        messages: list[T] = []
        for element in elements:
            try:
                messages.append(self._single.decode(element))
            except _UNREADABLE as error:
                self._count(topic, error)
        return messages

    def _count(self, topic: str, error: Exception) -> None:
        self.malformed += 1
        if self.malformed & (self.malformed - 1) == 0:  # at 1, 2, 4, 8 ...: a flood stays readable
            _LOG.warning("%d malformed messages, now on %s: %s", self.malformed, topic, error)
