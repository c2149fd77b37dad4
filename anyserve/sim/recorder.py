"""Where events of a simulation go: numbered per source like those of live processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

from anyserve.core.events import AnyEvent, Envelope

Record = Callable[[int, str, int, int, AnyEvent], None]
"""Takes an event: its time, source, the source's life, the number in that life, and what happened.
"""
_ALL: Final = 1 << 32


def enveloped(take: Callable[[Envelope], None]) -> Record:
    """Hands each event on as the event log has it."""

    def record(t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        take(Envelope(t=t, source=source, incarnation=incarnation, seq=seq, event=event))

    return record


class Sample:
    """Which requests' events are recorded: a share of them, the same ones for the same ids."""

    __slots__ = ("_below", "_taken", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._below = round(share * _ALL)
        self._taken: set[str] = set()

    def takes(self, request_id: str) -> bool:
        """Whether the events of this request are recorded. Asked first by its origin."""
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

    __slots__ = ("_record", "incarnation", "seq", "source")

    def __init__(self, source: str, incarnation: int, record: Record) -> None:
        self.source = source
        self.incarnation = incarnation
        self.seq = 0
        self._record = record

    def say(self, event: AnyEvent, now: int) -> None:
        """Something happened."""
        self._record(now, self.source, self.incarnation, self.seq, event)
        self.seq += 1
