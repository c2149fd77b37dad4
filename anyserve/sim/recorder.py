"""Where events of a simulation go: numbered per source like those of live processes."""

from __future__ import annotations

from collections.abc import Callable

from anyserve.core.events import AnyEvent, Envelope

Record = Callable[[Envelope], None]


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
        self._record(
            Envelope(
                t=now, source=self.source, incarnation=self.incarnation, seq=self.seq, event=event
            )
        )
        self.seq += 1
