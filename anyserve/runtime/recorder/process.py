"""Listens as an observer and appends what it hears to `events.jsonl` of the run directory.

After a broker's restart processes say their last events again; each is written once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from anyserve.core.events import Envelope
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.process import NodeConfig, Stop, report_ready
from anyserve.runtime.wire import Topics
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.log import EventLogWriter

_LOG = logging.getLogger(__name__)
LOG_NAME: Final = "events.jsonl"
FLUSH_S: Final = 0.25
QUIET_S: Final = 0.2
"""Asked to stop, it listens until nothing came for this long: the last events are on their way."""
LONGEST_S: Final = 2.0


async def serve(config: NodeConfig, stop: Stop) -> int:
    """Record until asked to stop.

    Raises:
        StartError: no broker, or it denies the subscription.
    """
    reader: BatchReader[Envelope] = BatchReader(Envelope)
    known = GapCounter()
    heard = 0
    with EventLogWriter(Path(config.run_dir) / LOG_NAME) as log:

        def on_message(topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - the bus calls it so
            nonlocal heard
            del retained
            envelopes = reader.read(topic, payload)
            heard += len(envelopes)
            log.write_all(
                one for one in envelopes if known.add(one.source, one.incarnation, one.seq)
            )

        bus = MqttBus(
            config.broker,
            config.credential,
            client_id=f"recorder-{config.incarnation}",
            on_message=on_message,
        )
        await bus.start()
        try:
            await bus.subscribe(Topics(config.prefix).event("+"), 0)
            report_ready()
            while not stop.requested:
                await _pause(stop, FLUSH_S)
                log.flush()
            await _listen_out(lambda: heard)
        finally:
            await bus.close()
    if reader.malformed:
        _LOG.warning("%d events could not be read", reader.malformed)
    return 0


async def _pause(stop: Stop, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _listen_out(heard: Callable[[], int]) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + LONGEST_S
    before = -1
    while heard() != before and loop.time() < end_s:
        before = heard()
        await asyncio.sleep(QUIET_S)
