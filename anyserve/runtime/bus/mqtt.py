"""The bus over MQTT 3.1.1: one connection at a time, kept up until `close`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from anyserve.core.spec import KEEPALIVE_S
from anyserve.errors import ProtocolError, StartError
from anyserve.runtime.bus.address import BrokerAddress, Credential
from anyserve.runtime.bus.base import BusStats, OnConnection, OnMessage, Will
from anyserve.runtime.bus.disturbance import Disturbance, Way
from anyserve.runtime.bus.link import DENIED, GmqttLink, Link, LinkEvents, LinkOptions, LinkWill
from anyserve.runtime.bus.topics import PROOF_MARK

_LOG = logging.getLogger(__name__)
_DRAIN_POLLS_S: Final = (0.0005, 0.01)
_NOTHING: Final = "anyserve-round-trip"


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How a connection is kept. The defaults are those of the design, measured there."""

    keepalive_s: int = KEEPALIVE_S
    connect_timeout_s: float = 5.0
    backoff_first_s: float = 0.05
    backoff_max_s: float = 2.0
    window: int = 100
    """QoS 1 messages sent and not yet acknowledged."""
    outgoing_limit_bytes: int = 256 * 2**20
    """Above it new messages are refused (counted, logged) instead of filling the memory."""


@dataclass(slots=True, eq=False)
class _Outgoing:
    topic: str
    payload: bytes
    qos: int
    retain: bool


class MqttBus:
    """`Bus` over MQTT. See `anyserve.runtime.bus.base` for what it promises."""

    def __init__(
        self,
        address: BrokerAddress,
        credential: Credential | None,
        *,
        client_id: str,
        on_message: OnMessage,
        on_connection: OnConnection | None = None,
        will: Will | None = None,
        settings: MqttSettings | None = None,
        link: Callable[[LinkOptions, LinkEvents], Link] = GmqttLink,
    ) -> None:
        self._address = address
        self._credential = credential
        self._client_id = client_id
        self._on_message = on_message
        self._on_connection = on_connection
        self._will = will
        self._settings = settings or MqttSettings()
        self._make_link = link
        self.on_proof: OnMessage | None = None
        self._link: Link | None = None
        self._connected = False
        self._connection = 0
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._uncut = asyncio.Event()
        self._uncut.set()
        self._disturbance: Disturbance | None = None
        self._subscriptions: dict[str, int] = {}
        self._queue: deque[_Outgoing] = deque()
        self._unacked: dict[int, _Outgoing] = {}
        self._backlog_bytes = 0
        self._sent = self._received = self._acknowledged = self._resent = self._reconnects = 0
        self._dropped = self._refused = self._callback_errors = self._foreign_proofs = 0

    @property
    def connected(self) -> bool:
        """Whether messages go out right now."""
        return self._connected

    @property
    def connection(self) -> int:
        """Number of the last connection that reached the broker."""
        return self._connection

    @property
    def stats(self) -> BusStats:
        """Counters so far."""
        link = self._link
        return BusStats(
            sent=self._sent,
            received=self._received,
            acknowledged=self._acknowledged,
            resent=self._resent,
            reconnects=self._reconnects,
            dropped_qos0=self._dropped,
            refused_qos1=self._refused,
            callback_errors=self._callback_errors,
            foreign_proofs=self._foreign_proofs,
            outgoing_backlog_bytes=self._backlog_bytes + (link.unsent_bytes() if link else 0),
            incoming_backlog_bytes=link.unread_bytes() if link else 0,
        )

    async def start(self) -> None:
        """Connect once, and keep the connection from then on.

        Raises:
            StartError: the broker is unreachable or refuses us.
        """
        try:
            await self._connect()
        except ProtocolError as refused:
            message = f"the broker at {self._address.url} refused {self._who()}: {refused.message}"
            hint = "check the user and password of this role"
            raise StartError(message, code="broker_refused", hint=hint) from None
        except (OSError, TimeoutError) as error:
            reason = str(error) or "no answer"
            message = f"no broker answers at {self._address.url}: {reason}"
            hint = "is it running, and is the address right?"
            raise StartError(message, code="broker_unreachable", hint=hint) from None
        self._keeper = asyncio.create_task(self._keep(), name=f"bus {self._client_id}")

    async def close(self) -> None:
        """Say goodbye (no will is sent) and stop."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._disturbance is not None:
            self._disturbance.close()
        was_connected, self._connected = self._connected, False
        link, self._link = self._link, None
        if link is not None and was_connected:
            await link.close()

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe now and after every reconnect; returns when the broker has confirmed.

        Raises:
            StartError: the broker denies it.
        """
        self._subscriptions[topic_filter] = qos
        link = self._link
        if link is None or not self._connected:
            return  # the next connection begins with it
        try:
            codes = await link.subscribe([(topic_filter, qos)])
        except OSError:
            return
        if codes[0] == DENIED:
            del self._subscriptions[topic_filter]
            message = f"the broker denies {self._who()} to subscribe to {topic_filter}"
            hint = "its access rules do not match this role"
            raise StartError(message, code="broker_permission", hint=hint)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Forget a subscription."""
        self._subscriptions.pop(topic_filter, None)
        if self._link is not None and self._connected:
            with contextlib.suppress(OSError):
                await self._link.unsubscribe(topic_filter)

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> None:
        """Send, or queue until it can be sent. Never blocks, never raises for the network."""
        if self._disturbance is not None:
            pass_on = partial(self._publish, topic, payload, qos, retain)
            self._disturbance.carry(Way.OUT, topic, pass_on)
        else:
            self._publish(topic, payload, qos, retain)

    def disturb(self, disturbance: Disturbance | None) -> None:
        """Let all messages of both directions go through this (None: through nothing)."""
        self._disturbance = disturbance

    def cut(self) -> None:
        """Break the connection without a goodbye, and make no other until `uncut`."""
        if not self._uncut.is_set():
            return
        self._uncut.clear()
        if self._link is not None and self._connected:
            self._link.abort()
            self._went_down()

    def uncut(self) -> None:
        """Connect again, now."""
        self._uncut.set()

    async def round_trip(self) -> float | None:
        """Seconds from a question to the broker's answer; None while the connection is down."""
        link = self._link
        if link is None or not self._connected:
            return None
        begun_s = time.perf_counter()
        try:
            # To unsubscribe from what was never subscribed changes nothing, and is answered.
            await link.unsubscribe(_NOTHING)
        except OSError:
            return None
        return time.perf_counter() - begun_s

    def _publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:  # noqa: FBT001 - the hot path takes no keywords
        if qos == 0 and not self._connected:
            self._dropped += 1
            return
        if self._backlog_bytes + len(payload) > self._settings.outgoing_limit_bytes:
            self._refuse(topic, qos)
            return
        message = _Outgoing(topic, payload, qos, retain)
        self._backlog_bytes += len(payload)
        # What waits goes first, or a later QoS 0 message would overtake on its topic.
        if self._queue or not self._may_send(message):
            self._queue.append(message)
        else:
            self._send(message)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is out and acknowledged; False when the time was not enough."""
        poll_s, longest_s = _DRAIN_POLLS_S
        try:
            async with asyncio.timeout(timeout_s):
                # Polled: rare, and not worth a check on every acknowledgement.
                while self._queue or self._unacked or (self._link and self._link.unsent_bytes()):
                    await asyncio.sleep(poll_s)
                    poll_s = min(2 * poll_s, longest_s)
        except TimeoutError:
            return False
        return True

    def _who(self) -> str:
        return f"user {self._credential.user!r}" if self._credential else "a nameless user"

    def _may_send(self, message: _Outgoing) -> bool:
        if not self._connected:
            return False
        return message.qos == 0 or len(self._unacked) < self._settings.window

    def _send(self, message: _Outgoing) -> None:
        assert self._link is not None
        packet_id = self._link.publish(message.topic, message.payload, message.qos, message.retain)
        self._sent += 1
        if message.qos == 0:
            self._backlog_bytes -= len(message.payload)
        else:
            self._unacked[packet_id] = message

    def _refuse(self, topic: str, qos: int) -> None:
        if qos == 0:
            self._dropped += 1
            return
        self._refused += 1
        if self._refused & (self._refused - 1) == 0:  # at 1, 2, 4, 8 ...: enough to be seen
            _LOG.error("bus backlog full: refused %d messages, now for %s", self._refused, topic)

    def _pump(self) -> None:
        while self._queue and self._may_send(self._queue[0]):
            self._send(self._queue.popleft())

    async def _connect(self) -> None:
        number = self._connection + 1
        will = self._will
        options = LinkOptions(
            self._address,
            self._credential,
            # A new id for each connection: a broker that still holds the dead one must not
            # hand us its session, nor delay us for the takeover.
            f"{self._client_id}-{number}",
            None if will is None else LinkWill(will.topic, will.payload(number), will.qos),
            self._settings.keepalive_s,
        )
        events = LinkEvents(self._deliver, self._acked, self._went_down)
        self._lost.clear()
        link = self._make_link(options, events)
        try:
            await link.open(self._settings.connect_timeout_s)
            if not self._uncut.is_set():
                raise ConnectionResetError("the connection is cut")  # noqa: TRY301 - as the network would
            if self._subscriptions:
                await self._subscribe_all(link)
        except BaseException as error:
            link.abort()
            if not isinstance(error, ConnectionRefusedError):
                self._connection = number  # the broker may hold a will with this number
            raise
        self._connection = number
        self._link = link
        self._connected = True
        self._resend()
        self._report(up=True)

    async def _subscribe_all(self, link: Link) -> None:
        wanted = list(self._subscriptions.items())
        async with asyncio.timeout(self._settings.connect_timeout_s):
            codes = await link.subscribe(wanted)
        for (topic_filter, _), code in zip(wanted, codes, strict=True):
            if code == DENIED:
                _LOG.error("the broker now denies the subscription to %s", topic_filter)

    def _resend(self) -> None:
        unacked, self._unacked = self._unacked, {}
        self._resent += len(unacked)
        self._sent -= len(unacked)
        self._queue.extendleft(reversed(unacked.values()))
        self._pump()

    def _went_down(self) -> None:
        self._connected = False  # at once: QoS 0 must not go into a dead socket as sent
        self._lost.set()

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            self._link = None
            self._drop_qos0()
            self._report(up=False)
            await self._reconnect()
            self._reconnects += 1

    async def _reconnect(self) -> None:
        wait_s = 0.0
        while True:
            await asyncio.sleep(wait_s)
            await self._uncut.wait()
            try:
                await self._connect()
            except (OSError, TimeoutError, ProtocolError) as error:
                longer_s = max(2 * wait_s, self._settings.backoff_first_s)
                wait_s = min(longer_s, self._settings.backoff_max_s)
                _LOG.debug("no broker at %s (%s): wait %.2f s", self._address.url, error, wait_s)
            except Exception:  # noqa: BLE001 - logged; a bus that stops trying is a dead process
                wait_s = self._settings.backoff_max_s
                _LOG.exception("reconnecting to %s failed", self._address.url)
            else:
                return

    def _drop_qos0(self) -> None:
        kept = deque(message for message in self._queue if message.qos > 0)
        self._dropped += len(self._queue) - len(kept)
        self._queue = kept
        waiting = (*kept, *self._unacked.values())
        self._backlog_bytes = sum(len(message.payload) for message in waiting)

    def _acked(self, packet_id: int) -> None:
        message = self._unacked.pop(packet_id, None)
        if message is None:
            return
        self._acknowledged += 1
        self._backlog_bytes -= len(message.payload)
        if self._queue:
            self._pump()

    def _deliver(self, topic: str, payload: bytes, retain: bool) -> None:  # noqa: FBT001 - the hot path takes no keywords
        self._received += 1
        if PROOF_MARK in topic:
            self._deliver_proof(topic, payload, retain=retain)
        elif self._disturbance is not None:
            pass_on = partial(self._hand_over, topic, payload, retain)
            self._disturbance.carry(Way.IN, topic, pass_on)
        else:
            self._hand_over(topic, payload, retain)

    def _hand_over(self, topic: str, payload: bytes, retain: bool) -> None:  # noqa: FBT001 - the hot path takes no keywords
        try:
            self._on_message(topic, payload, retain)
        except Exception:  # noqa: BLE001 - logged; one bad message must not cost the connection
            self._callback_errors += 1
            _LOG.exception("a message on %s was not handled", topic)

    def _deliver_proof(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.on_proof is None:
            self._foreign_proofs += 1
        else:
            self.on_proof(topic, payload, retain)

    def _report(self, *, up: bool) -> None:
        if self._on_connection is None:
            return
        try:
            self._on_connection(up, self._connection)
        except Exception:  # noqa: BLE001 - logged; the owner's mistake must not cost the connection
            self._callback_errors += 1
            _LOG.exception("the bus owner failed on a change of connection")
