"""A running cluster's events: what its run has recorded so far, then what the bus says.

It is an observer: it may read everything and say nothing, and it can never slow the cluster down.
What it cannot keep up with it drops, counts, and says so; above a rate it thins the stream
(`anyserve.telemetry.thinning`). What it missed while the broker was away it reads in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from anyserve.core.events import BusTrouble, Envelope
from anyserve.errors import AnyServeError
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import OnConnection, OnMessage
from anyserve.runtime.bus.mqtt import MqttBus, MqttSettings
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.clusters import ClusterRecord
from anyserve.runtime.eventsink import AGAIN_S
from anyserve.runtime.observer.facts import Facts
from anyserve.runtime.observer.inbox import HIGH_WATER_BYTES, Inbox
from anyserve.runtime.observer.recorded import RecordedSoFar
from anyserve.runtime.process import boot_id
from anyserve.runtime.wire import Topics
from anyserve.telemetry.source import SourceKind
from anyserve.telemetry.thinning import EVERY_NS, LIMIT_PER_S, Thinner

_LOG = logging.getLogger(__name__)
_TICK_S: Final = EVERY_NS / 1e9
_SETTINGS: Final = MqttSettings(backoff_max_s=0.25)
_CALM_S: Final = 1.0
_LOG_S: Final = 0.5
"""The recorder writes at least so often: after this, what the bus said before is in the log."""


def observer_bus(
    record: ClusterRecord, on_message: OnMessage, on_connection: OnConnection | None = None
) -> MqttBus:
    """A connection that may read everything and say nothing."""
    return MqttBus(
        record.broker,
        record.role_credentials().of(Role.OBSERVER),
        client_id=f"observer-{os.getpid()}-{id(on_message) & 0xFFFF:x}",
        on_message=on_message,
        on_connection=on_connection,
        settings=_SETTINGS,
    )


class LiveSource:
    """`EventSource` of a cluster on this machine: `start`, then iterate until the cluster ends.

    Args:
        record: the cluster.
        high_water_bytes: what may wait to be looked at.
        limit_per_s: events about requests above which the stream is thinned.
        follow_end: end when the supervisor is gone, not only at `close`.
    """

    kind = SourceKind.LIVE

    def __init__(
        self,
        record: ClusterRecord,
        *,
        high_water_bytes: int = HIGH_WATER_BYTES,
        limit_per_s: float = LIMIT_PER_S,
        follow_end: bool = True,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._record = record
        self._now_ns = now_ns
        self._follow_end = follow_end
        self._inbox = Inbox(high_water_bytes)
        self._reader: BatchReader[Envelope] = BatchReader(Envelope)
        name = f"observer-{os.getpid()}"
        incarnation = time.time_ns() // 1_000_000
        self._thinner = Thinner(name, incarnation, boot_id(), limit_per_s=limit_per_s)
        self._recorded = RecordedSoFar(Path(record.run_dir) / "events.jsonl")
        self._bus = observer_bus(record, self._on_message, self._on_connection)
        self._facts = Facts(record, self._bus)
        self._minding: asyncio.Task[None] | None = None
        self._look_up_s: list[float] = []
        self._attached = False
        self._said_dropped = 0
        self._over = False

    @property
    def facts(self) -> Mapping[str, str]:
        """What the events do not say; see `anyserve.runtime.observer.facts`."""
        return self._facts.now

    async def start(self) -> None:
        """Connect and listen.

        Raises:
            StartError: the broker is unreachable or refuses us.
        """
        await self._bus.start()
        try:
            await self._bus.subscribe(Topics(self._record.prefix).event("+"), 0)
        except AnyServeError:
            await self._bus.close()
            raise
        now_s = asyncio.get_running_loop().time()
        self._look_up_s = [now_s + _LOG_S]
        self._minding = asyncio.create_task(self._mind(), name="mind the cluster")

    async def __aiter__(self) -> AsyncIterator[Sequence[Envelope]]:
        async for batch in self._read_log():
            yield batch
        ticked_ns = self._now_ns()
        while not self._over:
            await self._inbox.wait(_TICK_S)
            if batch := self._take():
                yield batch
            if self._now_ns() - ticked_ns >= EVERY_NS:
                ticked_ns = self._now_ns()
                if said := self._tick(ticked_ns):
                    yield said
            async for batch in self._look_up():
                yield batch
        while batch := self._take():
            yield batch
        if said := self._tick(self._now_ns()):
            yield said

    async def close(self) -> None:
        """Disconnect and end the iteration; a second call does nothing."""
        self._over = True
        self._inbox.wake()
        minding, self._minding = self._minding, None
        if minding is None:
            return
        minding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await minding
        await self._bus.close()
        self._recorded.close()

    # --- what came -------------------------------------------------------------------------------

    def _on_message(self, topic: str, payload: bytes, _retained: bool) -> None:  # noqa: FBT001 - the bus calls it so
        self._inbox.put(topic, payload)

    def _on_connection(self, up: bool, connection: int) -> None:  # noqa: FBT001 - the bus calls it so
        if up and connection > 1:
            # What we missed is said again, to the recorder at least.
            now_s = asyncio.get_running_loop().time()
            self._look_up_s = [now_s + _LOG_S, now_s + AGAIN_S + 2 * _LOG_S]

    def _take(self) -> list[Envelope]:
        batch: list[Envelope] = []
        for topic, payload in self._inbox.take():
            batch += self._reader.read(topic, payload)
        return self._thinner.take(batch)

    def _tick(self, now_ns: int) -> list[Envelope]:
        said = self._thinner.tick(now_ns)
        dropped = self._inbox.dropped - self._said_dropped
        if dropped:
            self._said_dropped += dropped
            text = f"this observer fell behind: {dropped} events were dropped here, not in the log"
            event = BusTrouble(kind="lag", detail=text, count=dropped)
            said.append(self._thinner.say(event, now_ns))
            # Not before it is calm: to read the log is work, too.
            self._look_up_s = [asyncio.get_running_loop().time() + _CALM_S]
        return said

    # --- what was recorded -----------------------------------------------------------------------

    async def _look_up(self) -> AsyncIterator[list[Envelope]]:
        """Read on in the log where something is missing that it may have by now."""
        now_s = asyncio.get_running_loop().time()
        if not self._look_up_s or now_s < self._look_up_s[0]:
            return
        del self._look_up_s[0]
        first, self._attached = not self._attached, True
        if first or self._thinner.missing:
            async for batch in self._read_log():
                yield batch

    async def _read_log(self) -> AsyncIterator[list[Envelope]]:
        while not self._over:
            read = await asyncio.to_thread(self._recorded.read)
            if read is None:
                return
            if fresh := self._thinner.recall(read):
                yield fresh

    # --- the cluster beside its events -----------------------------------------------------------

    async def _mind(self) -> None:
        """Keep the facts fresh until the cluster is gone."""
        while True:
            try:
                await self._facts.refresh()
            except Exception:  # noqa: BLE001 - logged; the events go on without their facts
                _LOG.exception("the facts of the cluster could not be refreshed")
            if self._follow_end and not self._record.live:
                self._facts.ended()
                self._over = True
                self._inbox.wake()
                return
            await asyncio.sleep(self._facts.every_s)
