"""Spans to an OpenTelemetry collector while the cluster runs, where the environment names one.

Recording comes first: spans are made between flushes, sent from a thread, and dropped (and counted)
where the collector is slower than the cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from anyserve.core.events import Envelope, RequestOffered
from anyserve.errors import AnyServeError
from anyserve.telemetry.export.requests import WallClock, traced_request
from anyserve.telemetry.export.spans import PlannedSpan, plan_spans
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.reducer_state import Memory, RequestState

_LOG = logging.getLogger(__name__)
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
LATE_S: Final = 2.0
"""Replicas may still speak of a request after its outcome; then its trace is made."""
MAX_WAITING: Final = 4096
"""Requests that wait to be sent; beyond that new ones are dropped."""
BATCH: Final = 128
_MEMORY: Final = Memory(recent=MAX_WAITING, ledger=0, notices=0, faults=0, samples=0)


class Sender(Protocol):
    """What takes spans; blocks."""

    def send(self, spans: Iterable[PlannedSpan]) -> int:
        """Send them.

        Raises:
            AnyServeError: they were not taken.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def live_spans(environ: Mapping[str, str], run: str) -> LiveSpans | None:
    """The live export, where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`) is set."""
    if not any(environ.get(name) for name in ENDPOINTS):
        return None
    from anyserve.telemetry.export.otlp import OtlpSender  # noqa: PLC0415 - an extra

    try:
        sender = OtlpSender(resource={"anyserve.run.id": run})
    except AnyServeError as error:
        _LOG.warning("no spans are sent: %s (%s)", error.message, error.hint)
        return None
    return LiveSpans(sender, run)


class LiveSpans:
    """Takes what the recorder hears, and sends each request's trace once it has ended."""

    def __init__(self, sender: Sender, run: str, now_s: Callable[[], float] | None = None) -> None:
        self.dropped = 0
        self._sender = sender
        self._run = run
        self._now_s = now_s or asyncio.get_running_loop().time
        self._clock = WallClock()
        self._reducer = Reducer(_MEMORY, on_settled=self._settled)
        self._ended: deque[tuple[float, RequestState]] = deque()
        self._sending: asyncio.Task[None] | None = None

    def take(self, envelopes: Iterable[Envelope]) -> None:
        """Events, each once."""
        for envelope in envelopes:
            self._clock.add(envelope)
            self._reducer.apply(envelope)

    def send_due(self) -> None:
        """Send what ended long enough ago, unless something is being sent."""
        if self._sending is not None and not self._sending.done():
            return
        requests = self._due(self._now_s() - LATE_S)
        if requests:
            self._sending = asyncio.create_task(self._send(requests), name="send-spans")

    async def close(self) -> None:
        """Send all that is left, and say what was lost."""
        if self._sending is not None:
            await self._sending
        while requests := self._due(float("inf")):
            await self._send(requests)
        await asyncio.to_thread(self._sender.close)
        if self.dropped:
            _LOG.warning("the traces of %d requests were not sent", self.dropped)

    def _settled(self, request: RequestState) -> None:
        if len(self._ended) >= MAX_WAITING:
            self.dropped += 1
        else:
            self._ended.append((self._now_s(), request))

    def _due(self, before_s: float) -> list[RequestState]:
        found: list[RequestState] = []
        while self._ended and self._ended[0][0] <= before_s and len(found) < BATCH:
            found.append(self._ended.popleft()[1])
        return found

    async def _send(self, requests: Sequence[RequestState]) -> None:
        spans = [span for request in requests for span in self._spans(request)]
        try:
            await asyncio.to_thread(self._sender.send, spans)
        except AnyServeError as error:
            if not self.dropped:
                _LOG.warning("%s; spans are dropped until it does", error.message)
            self.dropped += len(requests)

    def _spans(self, request: RequestState) -> list[PlannedSpan]:
        for envelope in request.events:
            if isinstance(envelope.event, RequestOffered):
                traced = traced_request(envelope, request.events)
                return plan_spans(traced, self._clock, self._run)
        return []
