"""Where events come from: a live cluster, a recorded run, a simulation or a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Protocol

from anyserve.core.events import Envelope
from anyserve.errors import UsageError
from anyserve.telemetry.log import ReadReport, merge, read_events

BATCH_EVENTS = 1000
_NS_PER_S = 1e9


class SourceKind(Enum):
    """What stands behind the events; people must always see which."""

    LIVE = "live"
    REPLAY = "replay"
    SIM = "sim"
    TEST = "test"


class EventSource(Protocol):
    """Batches of envelopes, until the source ends or is closed. It can be read once."""

    @property
    def kind(self) -> SourceKind:
        """What stands behind the events."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What the events do not say: broker address, run directory, and the like."""

    def __aiter__(self) -> AsyncIterator[Sequence[Envelope]]:
        """The batches; a batch is never empty."""

    async def close(self) -> None:
        """End the iteration and free what the source holds; a second call does nothing."""


@dataclass(slots=True)
class ListSource:
    """Envelopes from memory, for tests and demonstrations."""

    envelopes: Sequence[Envelope]
    batch_events: int = BATCH_EVENTS
    kind: SourceKind = SourceKind.TEST
    facts: Mapping[str, str] = field(default_factory=dict)
    closed: bool = False

    async def __aiter__(self) -> AsyncIterator[Sequence[Envelope]]:
        for start in range(0, len(self.envelopes), self.batch_events):
            if self.closed:
                return
            yield self.envelopes[start : start + self.batch_events]
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop before the next batch."""
        self.closed = True


class ReplaySource:
    """A recorded log again, at `speed` times the pace it had, or at once where `speed` is None.

    `report` says afterwards what could not be read. `sleep` is injected so that a test, or a
    screen that jumps, decides what waiting means.

    Raises:
        UsageError: `speed` is not above 0.
    """

    def __init__(
        self,
        path: Path,
        *,
        speed: float | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        batch_events: int = BATCH_EVENTS,
    ) -> None:
        if speed is not None and speed <= 0:
            raise UsageError(
                f"cannot replay at speed {speed}",
                code="bad_speed",
                hint="1 is the pace of the run, 8 is eight times as fast",
            )
        self.report = ReadReport()
        self._path = path
        self._speed = speed
        self._sleep = sleep
        self._batch_events = batch_events
        self._closed = False

    @property
    def kind(self) -> SourceKind:
        """A replay."""
        return SourceKind.REPLAY

    @property
    def facts(self) -> Mapping[str, str]:
        """The log that is replayed."""
        return {"log": str(self._path)}

    async def __aiter__(self) -> AsyncIterator[Sequence[Envelope]]:
        """The log's envelopes in order of time within each boot, each once."""
        envelopes = merge([read_events(self._path, self.report)])
        batches = self._at_once(envelopes) if self._speed is None else self._paced(envelopes)
        last: Envelope | None = None
        for batch in batches:
            if self._speed is not None and last is not None and last.boot == batch[0].boot:
                await self._sleep((batch[0].t - last.t) / _NS_PER_S / self._speed)
            last = batch[-1]
            if self._closed:
                return
            yield batch
            await asyncio.sleep(0)

    def _at_once(self, envelopes: Iterable[Envelope]) -> Iterable[list[Envelope]]:
        rest = iter(envelopes)
        while batch := list(islice(rest, self._batch_events)):
            yield batch

    def _paced(self, envelopes: Iterable[Envelope]) -> Iterable[list[Envelope]]:
        """Envelopes of one moment (20 ms) together: finer steps than a screen can show."""
        moment_ns = int(0.02 * _NS_PER_S * max(1.0, self._speed or 1.0))
        batch: list[Envelope] = []
        for envelope in envelopes:
            first = batch[0] if batch else envelope
            if envelope.boot != first.boot or envelope.t - first.t > moment_ns:
                yield batch
                batch = []
            batch.append(envelope)
        if batch:
            yield batch

    async def close(self) -> None:
        """Stop before the next batch."""
        self._closed = True
