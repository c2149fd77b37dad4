"""Drives one of core's state machines in real time: bus in, effects out, one timer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from anyserve.core.effects import Effect, Send, SetTimer
from anyserve.core.events import EVENT_TYPES, BusTrouble
from anyserve.core.inputs import BusDown, BusUp, Pressure, Wake
from anyserve.runtime.alarm import Alarm
from anyserve.runtime.broker.acl import AccessRules
from anyserve.runtime.broker.proof import prove_permissions
from anyserve.runtime.bus.address import BrokerAddress, Credential, Role
from anyserve.runtime.bus.base import Will
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader, Outbox
from anyserve.runtime.eventsink import EventSink
from anyserve.runtime.wire import RETAINED, Topics, encode, is_lazy, is_sound, qos_of

_LOG = logging.getLogger(__name__)
LAG_BYTES: Final = 32 * 2**20
LAG_CHECK_S: Final = 0.5
DRAIN_S: Final = 2.0


class Machine(Protocol):
    """What core's three machines have in common."""

    def handle(self, now: int, message: Any) -> list[Effect]:
        """Fold one input."""
        ...


class Driver:
    """One machine on one connection.

    Args:
        role: what the connection may do.
        name: the process's id; also its event source.
        inbound: the union of message types it takes.
        perform: carries out the effects that only this role has.
        address, credential, prefix: the broker and who we are there.
        incarnation, boot: of this process.
        will: published when the connection breaks.
        tee: gets every event envelope (an origin's own log).
        lagging: tells the machine about its backlog (the scheduler refuses new work).
    """

    def __init__(
        self,
        *,
        role: Role,
        name: str,
        inbound: Any,
        perform: Callable[[Effect], None],
        address: BrokerAddress,
        credential: Credential | None,
        prefix: str,
        incarnation: int,
        boot: str,
        will: Will | None = None,
        tee: Callable[[Any], None] | None = None,
        lagging: bool = False,
    ) -> None:
        self.role = role
        self.name = name
        self.topics = Topics(prefix)
        self._rules = AccessRules(prefix.partition("/")[2])
        self._reader: BatchReader[Any] = BatchReader(inbound)
        self._perform = perform
        self._machine: Machine | None = None
        self._alarm = Alarm()
        self._timer: asyncio.TimerHandle | None = None
        self._lagging = lagging
        self._pressed = False
        self._malformed = self._unsound = 0
        self._watch: asyncio.Task[None] | None = None
        self.bus = MqttBus(
            address,
            credential,
            client_id=f"{name}-{incarnation}"[-64:],
            on_message=self._on_message,
            on_connection=self._on_connection,
            will=will,
        )
        self._outbox = Outbox(self.bus, encode)
        self.events = EventSink(
            self.bus,
            self.topics.event(name),
            source=name,
            incarnation=incarnation,
            boot=boot,
            now_ns=time.monotonic_ns,
            tee=tee,
        )

    async def connect(self) -> None:
        """Connect and prove that the broker passes on what this role says.

        Raises:
            StartError: the broker is unreachable, or denies a right.
        """
        await self.bus.start()
        await prove_permissions(self.bus, self._rules, self.role)

    async def subscribe(self, filters: Iterable[tuple[str, int]]) -> None:
        """Listen; messages are dropped until `run` has given the machine."""
        for topic_filter, qos in filters:
            await self.bus.subscribe(topic_filter, qos)

    def run(self, machine: Machine, first: list[Effect]) -> None:
        """From now on messages go to the machine; `first` are the effects of its start."""
        self._machine = machine
        self.carry_out(first)
        self._watch = asyncio.create_task(self._watch_backlog(), name="bus-backlog")

    def feed(self, message: Any) -> None:
        """Fold one input now and carry out what comes of it."""
        if self._machine is not None:
            now = time.monotonic_ns()
            self.carry_out(self._machine.handle(now, message), now)

    def carry_out(self, effects: list[Effect], now: int | None = None) -> None:
        """Do what the machine wants, in order; events get the machine's own `now`."""
        for effect in effects:
            # By type: isinstance is dear for structs, and this is the hot path.
            kind = type(effect)
            if kind is Send:
                assert isinstance(effect, Send)
                self._outbox.put(
                    self.topics.of(effect.inbox, effect.to),
                    effect.message,
                    qos=qos_of(effect),
                    retain=effect.inbox in RETAINED,
                    lazy=is_lazy(effect),
                )
            elif kind in EVENT_TYPES:
                self.events.emit(effect, t=now)  # type: ignore[arg-type]
            elif kind is SetTimer:
                assert isinstance(effect, SetTimer)
                if self._alarm.ask(effect.at_ns):
                    self._set_timer()
            else:
                self._perform(effect)

    async def close(self) -> None:
        """Send what waits, say goodbye and stop."""
        if self._watch is not None:
            self._watch.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._machine = None
        self._outbox.flush()
        self.events.close()
        await self.bus.drain(DRAIN_S)
        await self.bus.close()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0.0, (self._alarm.rings_ns - time.monotonic_ns()) / 1e9)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._alarm.ring(time.monotonic_ns()):
            self.feed(Wake())
        else:
            self._set_timer()

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - the bus calls it so
        del retained
        for message in self._reader.read(topic, payload):
            if not is_sound(message):
                self._count_unsound(topic, message)
                continue
            try:
                self.feed(message)
            except Exception:  # noqa: BLE001 - the boundary of one message
                # Those that came in the same list are not to suffer.
                _LOG.exception("a bug of ours: %s on %s", type(message).__name__, topic)

    def _count_unsound(self, topic: str, message: Any) -> None:
        self._unsound += 1
        if self._unsound & (self._unsound - 1) == 0:  # at 1, 2, 4, 8 ...: a flood stays readable
            kind = type(message).__name__
            _LOG.warning("%d with impossible names, now a %s on %s", self._unsound, kind, topic)

    def _on_connection(self, up: bool, connection: int) -> None:  # noqa: FBT001 - the bus calls it so
        self.events.on_connection(up=up)
        if self._machine is None:
            return
        self.feed(BusUp(connection=connection) if up else BusDown())
        if connection > 1 or not up:
            kind = "reconnected" if up else "disconnected"
            self.events.emit(BusTrouble(kind=kind, detail=f"connection {connection}"))

    async def _watch_backlog(self) -> None:
        while True:
            await asyncio.sleep(LAG_CHECK_S)
            malformed = self._reader.malformed + self._unsound
            if malformed > self._malformed:
                count, self._malformed = malformed - self._malformed, malformed
                self.events.emit(
                    BusTrouble(kind="malformed", detail="messages were ignored", count=count)
                )
            backlog = self.bus.stats.incoming_backlog_bytes
            high = backlog > (LAG_BYTES // 2 if self._pressed else LAG_BYTES)
            if high != self._pressed:
                self._pressed = high
                text = f"{backlog} bytes came in and were not read yet"
                self.events.emit(BusTrouble(kind="lag", detail=text))
                if self._lagging:
                    self.feed(Pressure(high=high))
