"""What every bus promises, whatever carries it.

One `Bus` is one connection of one role. Messages of one topic keep their order. QoS 1 is at least
once: what the broker has not acknowledged is sent again after a reconnect. QoS 0 is at most once:
what is published while the connection is down is dropped and counted. Sessions are clean, so a
message that is published while a *subscriber* is away does not reach it; durability is the
journal and re-sends, not the broker. Retained messages are published again by their owner when
`on_connection` reports a new connection: not every broker keeps them over a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

OnMessage = Callable[[str, bytes, bool], None]
"""Called in the loop for each message: topic, payload, whether it is a retained one from before."""

OnConnection = Callable[[bool, int], None]
"""Called in the loop when the connection came up (after its subscriptions) or went down."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes if this connection ends without a goodbye.

    `payload` is called with the number of each new connection, so that an old will is known
    for what it is.
    """

    topic: str
    payload: Callable[[int], bytes]
    qos: int = 1


@dataclass(frozen=True, slots=True)
class BusStats:
    """Counters of one bus since it was made, and its backlogs now."""

    sent: int
    """Messages handed to the connection, re-sent ones not counted again."""
    received: int
    acknowledged: int
    resent: int
    reconnects: int
    dropped_qos0: int
    """QoS 0 messages published while the connection was down or hopelessly behind."""
    refused_qos1: int
    """QoS 1 messages refused because the outgoing backlog stood at its limit."""
    callback_errors: int
    foreign_proofs: int
    """Messages on reserved proof topics that nobody here waited for."""
    outgoing_backlog_bytes: int
    """Queued or unacknowledged QoS 1 payloads plus unsent bytes of the socket."""
    incoming_backlog_bytes: int
    """Bytes that arrived and were not read yet: we are slower than what comes in."""


class Bus(Protocol):
    """One connection of one role to the broker."""

    @property
    def connected(self) -> bool:
        """Whether messages go out right now."""

    @property
    def connection(self) -> int:
        """Number of the last connection, from 1; 0 before the first. Only ever grows."""

    @property
    def stats(self) -> BusStats:
        """Counters so far."""

    on_proof: OnMessage | None
    """Takes messages of reserved proof topics, which never reach `on_message`."""

    async def start(self) -> None:
        """Connect.

        Raises:
            StartError: the broker is unreachable or refuses us.
        """

    async def close(self) -> None:
        """Say goodbye (no will is sent) and stop. Does not wait for unsent messages: `drain`."""

    async def subscribe(self, topic_filter: str, qos: int) -> None:
        """Subscribe now and after every reconnect.

        Returns when the broker has confirmed it; while the connection is down, at once (the next
        connection begins with its subscriptions, before `on_connection`).

        Raises:
            StartError: the broker denies it.
        """

    async def unsubscribe(self, topic_filter: str) -> None:
        """Forget a subscription."""

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> None:
        """Send, or queue until it can be sent. Never blocks, never raises for the network."""

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is out and acknowledged; False when the time was not enough."""
