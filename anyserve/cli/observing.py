"""A running cluster's events, as its observer hears them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence

from anyserve.core.events import Envelope
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.base import OnMessage
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.clusters import ClusterRecord
from anyserve.runtime.wire import Topics
from anyserve.telemetry.source import SourceKind


def observer_bus(record: ClusterRecord, on_message: OnMessage) -> MqttBus:
    """A connection that may read everything and say nothing."""
    return MqttBus(
        record.broker,
        record.role_credentials().of(Role.OBSERVER),
        client_id=f"observer-{os.getpid()}-{id(on_message) & 0xFFFF:x}",
        on_message=on_message,
    )


class LiveSource:
    """`EventSource` of a cluster on this machine: `start`, then iterate until `close`."""

    def __init__(self, record: ClusterRecord) -> None:
        self.kind = SourceKind.LIVE
        self._record = record
        self._reader: BatchReader[Envelope] = BatchReader(Envelope)
        self._batches: asyncio.Queue[list[Envelope] | None] = asyncio.Queue()
        self._bus = observer_bus(record, self._on_message)
        self._closed = False

    @property
    def facts(self) -> Mapping[str, str]:
        """What the events do not say."""
        return {
            "broker": self._record.broker.url,
            "cluster": self._record.name,
            "run_dir": self._record.run_dir,
        }

    async def start(self) -> None:
        """Connect and listen.

        Raises:
            StartError: the broker is unreachable or refuses us.
        """
        await self._bus.start()
        await self._bus.subscribe(Topics(self._record.prefix).event("+"), 0)

    async def __aiter__(self) -> AsyncIterator[Sequence[Envelope]]:
        while (batch := await self._batches.get()) is not None:
            yield batch

    async def close(self) -> None:
        """Disconnect and end the iteration; a second call does nothing."""
        if not self._closed:
            self._closed = True
            await self._bus.close()
            self._batches.put_nowait(None)

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - the bus calls it so
        del retained
        envelopes = self._reader.read(topic, payload)
        if envelopes:
            self._batches.put_nowait(envelopes)
