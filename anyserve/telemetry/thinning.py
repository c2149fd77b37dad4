"""A stream of events that nobody could read whole: some requests told in full, the rest as sums.

Above a rate an observer passes on one request in 2, 4, 8 ..., drawn by its id, with all that is
said of it, and everything that is not about a request. What it leaves out it adds up, and says the
sums four times a second in an event of its own. The recorder hears the whole stream.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from anyserve.core.events import AnyEvent, Envelope, PolicyFailed, StreamThinned
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.replica_names import ReplicaNames
from anyserve.telemetry.sums import Sums

LIMIT_PER_S: Final = 2_000
"""Events about requests that are passed on, about."""
EVERY_NS: Final = 250_000_000
CALM_NS: Final = 2_000_000_000
"""How long it must be calm before more requests are told."""
REMEMBERED: Final = 50_000
"""Requests whose lot is remembered: it must not change within a request's life."""
MOST_ONE_IN: Final = 4096
_RATE_MEMORY: Final = 0.5


class Thinner:
    """Takes batches as they were heard and gives what is to be passed on.

    `source`, `incarnation` and `boot` sign its own events. Call `tick` about every `EVERY_NS`.
    """

    def __init__(
        self, source: str, incarnation: int, boot: str, *, limit_per_s: float = LIMIT_PER_S
    ) -> None:
        self.one_in = 1
        self._sign = (source, incarnation, boot)
        self._seq = 0
        self._limit_per_s = limit_per_s
        self._heard = GapCounter()
        self._names = ReplicaNames()
        self._sums = Sums(self._names, REMEMBERED)
        self._lots: OrderedDict[str, bool] = OrderedDict()
        self._left_out = 0
        self._since_tick = 0
        self._ticked_ns: int | None = None
        self._rate_per_s = 0.0
        self._calm_since_ns: int | None = None
        self._changed = False

    def take(self, batch: Sequence[Envelope]) -> list[Envelope]:
        """Those of a batch that are to be passed on; repeated ones are not."""
        self._since_tick += sum(_request_of(one.event) is not None for one in batch)
        return self.recall(batch)

    def recall(self, recorded: Sequence[Envelope]) -> list[Envelope]:
        """Those of a recorded stretch that were not heard yet; it is past, so it has no rate."""
        fresh: list[Envelope] = []
        for envelope in recorded:
            if not self._heard.add(envelope.source, envelope.incarnation, envelope.seq):
                continue
            request_id = _request_of(envelope.event)
            if request_id is None:
                self._names.learn(envelope.source, envelope.event)
            elif not self._is_told(request_id):
                self._left_out += 1
                self._sums.add(request_id, envelope)
                continue
            fresh.append(envelope)
        return fresh

    @property
    def missing(self) -> int:
        """Events that were said and not heard."""
        return self._heard.missing

    def tick(self, now_ns: int) -> list[Envelope]:
        """Look at the rate; the sums of what was left out since the last time, if there are any."""
        self._measure(now_ns)
        if not self._left_out and not self._changed and not self._sums.open:
            return []
        event = StreamThinned(
            one_in=self.one_in,
            left_out=self._left_out,
            open=self._sums.open,
            sums=self._sums.take(),
            heard=self._heard.next_numbers,
            missing=self._heard.missing,
            changed=self._changed,
        )
        self._left_out, self._changed = 0, False
        return [self.say(event, now_ns)]

    def say(self, event: AnyEvent, now_ns: int) -> Envelope:
        """An event of the observer itself."""
        source, incarnation, boot = self._sign
        envelope = Envelope(
            t=now_ns, source=source, incarnation=incarnation, seq=self._seq, event=event, boot=boot
        )
        self._seq += 1
        return envelope

    def _is_told(self, request_id: str) -> bool:
        told = self._lots.get(request_id)
        if told is None:
            told = zlib.crc32(request_id.encode()) & (self.one_in - 1) == 0
            self._lots[request_id] = told
            if len(self._lots) > REMEMBERED:
                self._lots.popitem(last=False)
        return told

    def _measure(self, now_ns: int) -> None:
        if self._ticked_ns is None:
            self._ticked_ns, self._since_tick = now_ns, 0
            return
        past_ns = now_ns - self._ticked_ns
        if past_ns < EVERY_NS // 2:
            return
        rate_per_s = self._since_tick / (past_ns / 1e9)
        self._rate_per_s += (rate_per_s - self._rate_per_s) * _RATE_MEMORY
        self._ticked_ns, self._since_tick = now_ns, 0
        self._choose(now_ns)

    def _choose(self, now_ns: int) -> None:
        wanted = 1
        while self._rate_per_s / wanted > self._limit_per_s and wanted < MOST_ONE_IN:
            wanted *= 2
        if wanted > self.one_in:
            self._set(wanted)
        elif wanted == self.one_in:
            self._calm_since_ns = None
        elif self._calm_since_ns is None:
            self._calm_since_ns = now_ns
        elif now_ns - self._calm_since_ns >= CALM_NS:
            self._set(self.one_in // 2)

    def _set(self, one_in: int) -> None:
        self.one_in, self._changed, self._calm_since_ns = one_in, True, None


def _request_of(event: AnyEvent) -> str | None:
    """The request that an event is about; a policy's failure is about the policy."""
    return None if isinstance(event, PolicyFailed) else getattr(event, "id", None)
