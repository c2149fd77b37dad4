"""Where events of a simulation go, numbered per source like those of live processes, and what is
counted in place of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

from anyserve.core.counts import Count
from anyserve.core.events import AnyEvent, Envelope
from anyserve.telemetry.tally import Tally

_ALL: Final = 1 << 32


class Recorder:
    """Takes events: their time, source, the source's life, the number in that life, and what
    happened. This one keeps nothing."""

    def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        """One more event."""

    def count(self, t: int, source: str, count: Count) -> None:
        """The same of a request of which no such event is made."""


class Calls(Recorder):
    """Hands each event to a function."""

    def __init__(self, take: Callable[[int, str, int, int, AnyEvent], None]) -> None:
        self._take = take

    def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        """See `Recorder`."""
        self._take(t, source, incarnation, seq, event)


class Enveloped(Recorder):
    """Hands each event on as the event log has it."""

    def __init__(self, take: Callable[[Envelope], None]) -> None:
        self._take = take

    def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        """See `Recorder`."""
        self._take(Envelope(t=t, source=source, incarnation=incarnation, seq=seq, event=event))


class Counted(Recorder):
    """Adds all to a tally, and keeps nothing else."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        """See `Recorder`."""
        self._tally.follow(t, source, incarnation, seq, event)

    def count(self, t: int, source: str, count: Count) -> None:
        """See `Recorder`."""
        self._tally.count(t, source, count)


class Sample:
    """Which requests' events are recorded: a share of them, the same ones for the same ids."""

    __slots__ = ("_below", "_taken", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._below = round(share * _ALL)
        self._taken: set[str] = set()

    def takes(self, request_id: str) -> bool:
        """Whether the events of this request are recorded. Its origin asks, and nobody before."""
        if self.share >= 1.0:
            return True
        if crc32(request_id.encode()) >= self._below:
            return False
        self._taken.add(request_id)
        return True

    def took(self, request_id: str) -> bool:
        """What `takes` said of it; it costs less."""
        return self.share >= 1.0 or request_id in self._taken


class Voice:
    """One life of one process, as the event log knows it."""

    __slots__ = ("_recorder", "incarnation", "seq", "source")

    def __init__(self, source: str, incarnation: int, recorder: Recorder) -> None:
        self.source = source
        self.incarnation = incarnation
        self.seq = 0
        self._recorder = recorder

    def say(self, event: AnyEvent, now: int) -> None:
        """Something happened."""
        self._recorder.take(now, self.source, self.incarnation, self.seq, event)
        self.seq += 1

    def count(self, count: Count, now: int) -> None:
        """Something happened that is only counted."""
        self._recorder.count(now, self.source, count)
