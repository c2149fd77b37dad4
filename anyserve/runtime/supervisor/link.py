"""The supervisor's two connections: as origin it speaks, as observer it listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from anyserve.core.events import AnyEvent
from anyserve.core.messages import Operate
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.external import check_external_broker
from anyserve.runtime.broker.proof import prove_permissions
from anyserve.runtime.bus.address import BrokerAddress, Credentials, Role
from anyserve.runtime.bus.base import Bus
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import Outbox
from anyserve.runtime.eventsink import EventSink
from anyserve.runtime.supervisor.view import ClusterView

SOURCE: Final = "supervisor"
_DRAIN_S: Final = 1.0


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
        self._events = EventSink(
            bus,
            f"{prefix}/event/{SOURCE}",
            source=SOURCE,
            incarnation=incarnation,
            boot=boot,
            now_ns=now_ns,
        )

    def emit(self, event: AnyEvent) -> None:
        """Say what happened, now; while the broker is away, when it is back."""
        self._events.emit(event)

    def operate(self, wish: Operate) -> None:
        """Ask the scheduler to tell a replica."""
        self._outbox.put(f"{self._prefix}/sched/in", wish, qos=1)

    def on_connection(self, up: bool, _connection: int) -> None:  # noqa: FBT001 - the bus calls it so
        """The connection came up or went down."""
        self._events.on_connection(up=up)

    def close(self) -> None:
        """Hand everything to the connection."""
        self._outbox.flush()
        self._events.close()


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
            on_connection=self._on_connection,
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

    async def close(self) -> None:
        """Send what waits, and leave."""
        self.speaker.close()
        if self._said.connected:
            await self._said.drain(_DRAIN_S)
        await self._said.close()
        await self._heard.close()

    def _on_connection(self, up: bool, connection: int) -> None:  # noqa: FBT001 - the bus calls it so
        self.speaker.on_connection(up, connection)


def _hears_nothing(_topic: str, _payload: bytes, _retain: bool) -> None:  # noqa: FBT001 - the signature of a bus callback
    """The speaking connection subscribes to nothing."""
