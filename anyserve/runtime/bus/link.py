"""One MQTT 3.1.1 connection over gmqtt: connects once, reports its loss, never reconnects.

Reconnecting, re-sending and re-subscribing belong to `MqttBus`, which makes a new link for each
connection; so a will can carry the connection's number and nothing of an old session leaks into
a new one. Why gmqtt: `docs/adr/0001-mqtt-client.md`.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import gmqtt
from gmqtt.mqtt.constants import MQTTv311
from gmqtt.mqtt.handler import MQTTConnectError

from anyserve.errors import ProtocolError
from anyserve.runtime.bus.address import BrokerAddress, Credential
from anyserve.runtime.bus.base import OnMessage

_CLOSE_TIMEOUT_S: Final = 1.0
DENIED: Final = 0x80
"""The code in a SUBACK that says no."""

# The library logs every loss of a connection; we report each of them ourselves, once.
_LIBRARY_LOG = logging.getLogger("gmqtt")
_LIBRARY_LOG.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """Where a link reports to. All are called in the event loop."""

    on_message: OnMessage
    on_ack: Callable[[int], None]
    on_lost: Callable[[], None]


@dataclass(frozen=True, slots=True)
class LinkWill:
    """The will of one connection, as bytes."""

    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Everything one connection is made of."""

    address: BrokerAddress
    credential: Credential | None
    client_id: str
    will: LinkWill | None
    keepalive_s: int


class Link(Protocol):
    """One connection. `MqttBus` needs no more of a client library than this."""

    async def open(self, timeout_s: float) -> None:
        """Connect; raises OSError, TimeoutError or ProtocolError (refused)."""

    async def close(self) -> None:
        """Flush, say goodbye and close."""

    def abort(self) -> None:
        """Close without a goodbye: the broker sends the will."""

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> Sequence[int]:
        """Subscribe to all; returns the broker's code for each."""

    async def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe from one filter."""

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> int:  # noqa: FBT001 - the hot path takes no keywords
        """Hand a message to the socket; returns the packet id that `on_ack` will name, or 0."""

    def unsent_bytes(self) -> int:
        """Bytes that wait for the socket."""

    def unread_bytes(self) -> int:
        """Bytes that arrived and wait for us."""


class GmqttLink:
    """`Link` over gmqtt."""

    def __init__(self, options: LinkOptions, events: LinkEvents) -> None:
        self._options = options
        self._events = events
        self._acks: dict[int, asyncio.Future[Sequence[int]]] = {}
        self._last_id = 0
        self._lost = asyncio.Event()
        self._closing = False
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        will = options.will
        client = _Client(
            options.client_id,
            clean_session=True,
            will_message=will and gmqtt.Message(will.topic, will.payload, qos=will.qos),
            persistent_storage=_AckStore(self._stored, events.on_ack),
            logger=_LIBRARY_LOG,
        )
        if options.credential is not None:
            client.set_auth_credentials(options.credential.user, options.credential.password)
        client.on_message = self._on_message
        client.on_subscribe = self._on_answer
        client.on_unsubscribe = self._on_answer
        client.on_disconnect = self._on_disconnect
        self._client = client

    async def open(self, timeout_s: float) -> None:
        """Connect; raises OSError, TimeoutError or ProtocolError (refused)."""
        options = self._options
        try:
            async with asyncio.timeout(timeout_s):
                # The library would wait for ever for a broker that hangs up before it answers.
                await self._unless_lost(
                    self._client.connect(
                        options.address.host,
                        options.address.port,
                        ssl=options.address.ssl_context() or False,
                        keepalive=options.keepalive_s,
                        version=MQTTv311,
                    )
                )
        except MQTTConnectError as refused:
            self.abort()
            raise ProtocolError(refused.message, code="broker_refused") from None
        except BaseException:
            self.abort()
            raise
        connection = self._client._connection  # noqa: SLF001 - see _transport
        connection._protocol.write_data = self._write  # noqa: SLF001

    def _write(self, packet: bytes) -> None:
        """What goes out in one turn, acknowledgements too, goes in one system call."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(packet)
        self._unsent_bytes += len(packet)

    def _write_at_once(self) -> None:
        self._flush()
        connection = self._client._connection  # noqa: SLF001 - see _transport
        if connection is not None:
            vars(connection._protocol).pop("write_data", None)  # noqa: SLF001

    def _flush(self) -> None:
        packets, self._unsent, self._unsent_bytes = self._unsent, [], 0
        connection, transport = self._client._connection, self._transport()  # noqa: SLF001
        if packets and transport is not None and not transport.is_closing():
            connection._last_data_out = time.monotonic()  # noqa: SLF001 - it pings by this
            transport.write(packets[0] if len(packets) == 1 else b"".join(packets))

    async def _unless_lost(self, attempt: Any) -> None:
        connecting = asyncio.ensure_future(attempt)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({connecting, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise ConnectionResetError("the broker closed the connection")
            connecting.result()
        finally:
            connecting.cancel()
            lost.cancel()

    async def close(self) -> None:
        """Flush, say goodbye and close."""
        self._closing = True
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                with contextlib.suppress(OSError):
                    self._write_at_once()  # the library closes right behind its goodbye
                    await self._client.disconnect()
        except TimeoutError:  # the broker no longer reads
            self.abort()

    def abort(self) -> None:
        """Close without a goodbye: the broker sends the will."""
        self._closing = True
        transport = self._transport()
        if transport is not None:
            transport.abort()

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> Sequence[int]:
        """Subscribe to all; returns the broker's code for each."""
        wanted = [gmqtt.Subscription(topic, qos=qos) for topic, qos in filters]
        return await self._answer(self._client.subscribe(wanted))

    async def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe from one filter."""
        await self._answer(self._client.unsubscribe(topic_filter))

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> int:  # noqa: FBT001 - the hot path takes no keywords
        """Hand a message to the socket; returns the packet id that `on_ack` will name, or 0."""
        self._last_id = 0
        self._client.publish(gmqtt.Message(topic, payload, qos, retain))
        return self._last_id

    def unsent_bytes(self) -> int:
        """Bytes that wait for the socket."""
        transport = self._transport()
        return 0 if transport is None else transport.get_write_buffer_size() + self._unsent_bytes

    def unread_bytes(self) -> int:
        """Bytes that arrived and wait for us (in the kernel: the reader holds back at 128 KiB)."""
        transport = self._transport()
        if transport is None or transport.is_closing():
            return 0
        waiting = array.array("i", [0])
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        return waiting[0]

    def _transport(self) -> asyncio.Transport | None:
        # The library offers no way to its transport, nor a close that does not wait.
        connection = self._client._connection  # noqa: SLF001
        return None if connection is None else connection._transport  # noqa: SLF001

    async def _answer(self, packet_id: int) -> Sequence[int]:
        answer: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self._acks[packet_id] = answer
        try:
            return await answer
        finally:
            self._acks.pop(packet_id, None)

    def _stored(self, packet_id: int) -> None:
        self._last_id = packet_id

    def _on_message(
        self, _client: object, topic: str, payload: bytes, _qos: int, properties: dict[str, int]
    ) -> None:
        self._events.on_message(topic, payload, properties["retain"] == 1)

    def _on_answer(
        self, _client: object, packet_id: int, codes: Sequence[int], *_more: object
    ) -> None:
        answer = self._acks.get(packet_id)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def _on_disconnect(self, _client: object, _packet: object, *_more: object) -> None:
        if self._lost.is_set():
            return
        self._lost.set()
        for answer in self._acks.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection to the broker is gone"))
        if not self._closing:
            self._events.on_lost()


class _Client(gmqtt.Client):  # type: ignore[misc]  # the library has no types
    """gmqtt without its own reconnect, which would start a persistent session."""

    async def reconnect(self, delay: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Do nothing: the bus makes a new link."""


class _AckStore:
    """gmqtt's store of unacknowledged messages, used as what it is to us: a report of them.

    The bus keeps the messages; the library calls `push_message` when one was written and
    `remove_message_by_mid` when the broker acknowledged it.
    """

    is_empty = True

    def __init__(self, stored: Callable[[int], None], acked: Callable[[int], None]) -> None:
        self._stored = stored
        self._acked = acked

    def push_message(self, mid: int, _raw_package: bytes) -> None:
        self._stored(mid)

    def remove_message_by_mid(self, mid: int) -> None:
        self._acked(mid)

    async def wait_empty(self) -> None:
        return

    def clear(self) -> None:
        return

    def get_all(self) -> list[tuple[int, bytes]]:
        return []
