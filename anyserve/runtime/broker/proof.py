"""Each process proves at its start that the broker lets it say what it must be able to say.

MQTT has no answer for a message that the access rules deny: it vanishes. So before a process
reports ready it publishes one message for each right it needs, on a reserved topic which *the same
rule* grants (`replica/+/in` is proven on `replica/proof-scheduler/in`), listens there itself, and
fails naming the topic if one does not come back. The bus keeps everything on reserved topics away
from its owner, so they carry no conversation.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterable
from typing import Final

from anyserve.errors import StartError
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import Bus

PROOF_TIMEOUT_S: Final = 5.0


async def prove_permissions(
    bus: Bus, rules: AccessRules, role: Role, *, timeout_s: float = PROOF_TIMEOUT_S
) -> float:
    """Prove every publish right of `role`; returns the seconds the slowest loop-back took.

    Raises:
        StartError: the broker denies rights this role needs; names every topic.
    """
    proofs = rules.proofs(role)
    if not proofs:
        return 0.0
    loop_back = _LoopBack(bus, proofs.values())
    try:
        await loop_back.listen()
        took_s = await loop_back.run(timeout_s)
    finally:
        await loop_back.stop()
    denied = [right for right, topic in proofs.items() if topic in loop_back.missing]
    if denied:
        message = f"the broker does not pass on what role {role} publishes to {', '.join(denied)}"
        hint = "its access rules must grant these filters, exactly as written, to this role's user"
        raise StartError(message, code="broker_permission", hint=hint)
    return took_s


async def measure_round_trips(
    bus: Bus, rules: AccessRules, role: Role, *, count: int, timeout_s: float = PROOF_TIMEOUT_S
) -> list[float]:
    """Seconds of `count` acknowledged loop-backs, one after the other, on a proof topic.

    Raises:
        StartError: the broker does not answer in time.
    """
    topic = next(iter(rules.proofs(role).values()))
    loop_back = _LoopBack(bus, [topic])
    times_s: list[float] = []
    try:
        await loop_back.listen()
        for _ in range(count):
            begun_s = time.perf_counter()
            await loop_back.run(timeout_s)
            if loop_back.missing:
                message = f"the broker does not pass on what role {role} publishes to {topic}"
                raise StartError(message, code="broker_permission")
            # A broker that delays small packets answers with the message at once and holds its
            # acknowledgement back: the round trip is over when both are here.
            await bus.drain(timeout_s)
            times_s.append(time.perf_counter() - begun_s)
    finally:
        await loop_back.stop()
    return times_s


class _LoopBack:
    """Publishes to topics and waits until each message came back."""

    def __init__(self, bus: Bus, topics: Iterable[str]) -> None:
        self._bus = bus
        self._topics = tuple(topics)
        self._payload = b""
        self._complete = asyncio.Event()
        self.missing: set[str] = set()

    async def listen(self) -> None:
        self._bus.on_proof = self._on_proof
        for topic in self._topics:
            await self._bus.subscribe(topic, 0)

    async def run(self, timeout_s: float) -> float:
        """One round over all topics; what did not come back is left in `missing`."""
        # Replicas share a role and its proof topics: the nonce tells whose message it is.
        self._payload = json.dumps([{"type": "proof", "nonce": secrets.token_hex(8)}]).encode()
        self._complete.clear()
        self.missing = set(self._topics)
        started_s = time.perf_counter()
        for topic in self._topics:
            self._bus.publish(topic, self._payload, qos=1)
        try:
            async with asyncio.timeout(timeout_s):
                await self._complete.wait()
        except TimeoutError:
            pass
        return time.perf_counter() - started_s

    async def stop(self) -> None:
        self._bus.on_proof = None
        for topic in self._topics:
            await self._bus.unsubscribe(topic)

    def _on_proof(self, topic: str, payload: bytes, _retain: bool) -> None:  # noqa: FBT001 - the bus calls it so
        if payload == self._payload:
            self.missing.discard(topic)
            if not self.missing:
                self._complete.set()
