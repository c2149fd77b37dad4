"""Listens as an observer and appends what it hears to `events.jsonl` of the run directory.

After a broker's restart processes say their last events again; each is written once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from anyserve.core.events import Envelope
from anyserve.runtime.bus.mqtt import MqttBus, MqttSettings
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.eventsink import AGAIN_S
from anyserve.runtime.process import NodeConfig, Stop, report_ready
from anyserve.runtime.recorder.spans import LiveSpans, live_spans
from anyserve.runtime.wire import Topics
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.log import EventLogWriter

_LOG = logging.getLogger(__name__)
LOG_NAME: Final = "events.jsonl"
FLUSH_S: Final = 0.25
QUIET_S: Final = 0.2
"""Asked to stop, it listens until nothing came for this long: the last events are on their way."""
LONGEST_S: Final = 2.0
REPEATED_S: Final = AGAIN_S + 1.0
"""After a broker's restart what is missing is said again within this time, so it waits for it."""
SETTINGS: Final = MqttSettings(backoff_max_s=0.1)
"""It is back before the others have much to say."""


async def serve(config: NodeConfig, stop: Stop) -> int:
    """Record until asked to stop.

    Raises:
        StartError: no broker, or it denies the subscription.
    """
    run_dir = Path(config.run_dir)
    spans = live_spans(os.environ, run_dir.name)
    with EventLogWriter(run_dir / LOG_NAME) as log:
        ear = _Ear(log, spans)
        bus = MqttBus(
            config.broker,
            config.credential,
            client_id=f"recorder-{config.incarnation}",
            on_message=ear.on_message,
            on_connection=ear.on_connection,
            settings=SETTINGS,
        )
        await bus.start()
        try:
            await bus.subscribe(Topics(config.prefix).event("+"), 0)
            report_ready()
            while not stop.requested:
                await _pause(stop, FLUSH_S)
                log.flush()
                if spans is not None:
                    spans.send_due()
            await ear.listen_out()
        finally:
            await bus.close()
            if spans is not None:
                await spans.close()
    if ear.malformed:
        _LOG.warning("%d events could not be read", ear.malformed)
    return 0


class _Ear:
    """Writes what it hears, each event once."""

    def __init__(self, log: EventLogWriter, spans: LiveSpans | None) -> None:
        self._log = log
        self._spans = spans
        self._reader: BatchReader[Envelope] = BatchReader(Envelope)
        self._known = GapCounter()
        self._heard = 0
        self._back_s: float | None = None

    @property
    def malformed(self) -> int:
        """Events that could not be read."""
        return self._reader.malformed

    def on_message(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - the bus calls it so
        """Take a list of events."""
        del retained
        envelopes = self._reader.read(topic, payload)
        self._heard += len(envelopes)
        known = self._known
        fresh = [one for one in envelopes if known.add(one.source, one.incarnation, one.seq)]
        self._log.write_all(fresh)
        if self._spans is not None:
            self._spans.take(fresh)

    def on_connection(self, up: bool, connection: int) -> None:  # noqa: FBT001 - the bus calls it so
        """Remember when the broker was back."""
        if up and connection > 1:
            self._back_s = asyncio.get_running_loop().time()

    async def listen_out(self) -> None:
        """Listen until all is said: what is on its way, and what will be said again."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + LONGEST_S
        before = -1
        while (self._heard != before and loop.time() < end_s) or self._awaits_repetition():
            before = self._heard
            await asyncio.sleep(QUIET_S)

    def _awaits_repetition(self) -> bool:
        if self._back_s is None or not self._known.missing:
            return False
        return asyncio.get_running_loop().time() < self._back_s + REPEATED_S


async def _pause(stop: Stop, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
