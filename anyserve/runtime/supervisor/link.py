"""The supervisor's two connections: as origin it speaks, as observer it listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from anyserve.core.events import AnyEvent, Envelope
from anyserve.core.messages import Operate
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.external import check_external_broker
from anyserve.runtime.broker.proof import prove_permissions
from anyserve.runtime.bus.address import BrokerAddress, Credentials, Role
from anyserve.runtime.bus.base import Bus
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import Outbox
from anyserve.runtime.supervisor.view import ClusterView

SOURCE: Final = "supervisor"
_DRAIN_S: Final = 1.0
_POLL_S: Final = 0.02


class Speaker:
    """Says events as `event/supervisor` and wishes to the scheduler."""

    def __init__(
        self,
        bus: Bus,
        prefix: str,
        *,
        incarnation: int,
        boot: str,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._outbox = Outbox(bus, msgspec.json.encode)
        self._prefix = prefix
        self._incarnation = incarnation
        self._boot = boot
        self._now_ns = now_ns
        self._seq = 0

    def emit(self, event: AnyEvent) -> None:
        """Say what happened, now."""
        envelope = Envelope(
            t=self._now_ns(),
            source=SOURCE,
            incarnation=self._incarnation,
            seq=self._seq,
            event=event,
            boot=self._boot,
        )
        self._seq += 1
        self._outbox.put(f"{self._prefix}/event/{SOURCE}", envelope, qos=0)

    def operate(self, wish: Operate) -> None:
        """Ask the scheduler to tell a replica."""
        self._outbox.put(f"{self._prefix}/sched/in", wish, qos=1)

    def flush(self) -> None:
        """Hand everything to the connection."""
        self._outbox.flush()


class ClusterLink:
    """Both connections, up from `start` to `close`."""

    def __init__(
        self,
        address: BrokerAddress,
        credentials: Credentials,
        cluster: str,
        view: ClusterView,
        *,
        incarnation: int,
        boot: str,
    ) -> None:
        self._rules = AccessRules(cluster)
        self._view = view
        self._said = MqttBus(
            address,
            credentials.of(Role.ORIGIN),
            client_id=SOURCE,
            on_message=_hears_nothing,
        )
        self._heard = MqttBus(
            address,
            credentials.of(Role.OBSERVER),
            client_id=f"{SOURCE}-ear",
            on_message=view.on_message,
        )
        self.speaker = Speaker(self._said, self._rules.prefix, incarnation=incarnation, boot=boot)

    async def start(self, *, external: bool = False) -> tuple[str, ...]:
        """Connect both, listen, and prove that what we say is passed on.

        Returns warnings for people, about a broker that somebody else runs (`external`).

        Raises:
            StartError: the broker is not there, or denies us something.
        """
        await self._heard.start()
        for topic_filter, qos in self._view.filters:
            await self._heard.subscribe(topic_filter, qos)
        await self._said.start()
        if external:
            check = await check_external_broker(self._said, self._rules, Role.ORIGIN)
            return check.warnings
        await prove_permissions(self._said, self._rules, Role.ORIGIN)
        return ()

    async def until_reconnected(self) -> None:
        """After a broker's end: return once what is said goes out again."""
        # The end of the process may be known before the end of its connections.
        number = self._said.connection
        while not self._said.connected or self._said.connection == number:  # noqa: ASYNC110 - the bus has no such event
            await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """Send what waits, and leave."""
        self.speaker.flush()
        if self._said.connected:
            await self._said.drain(_DRAIN_S)
        await self._said.close()
        await self._heard.close()


def _hears_nothing(_topic: str, _payload: bytes, _retain: bool) -> None:  # noqa: FBT001 - the signature of a bus callback
    """The speaking connection subscribes to nothing."""
