"""How a process says what happened: numbered, timed, batched, and published as `event/<source>`.

Events are QoS 0: what is said while the broker is away reaches nobody, nor does what was in its
hands when it died. So a sink remembers its last moments, and after a reconnect it says them again:
at once, for those who listen already, and once more when the slowest observer must be back. Who
hears an event twice knows it by `(source, incarnation, seq)`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from anyserve.core.events import AnyEvent, Envelope
from anyserve.runtime.bus.base import Bus
from anyserve.runtime.wire import encode

FLUSH_S: Final = 0.05
"""Events wait this long for company: the bus costs per message, and observers paint at 4 Hz."""
SPLIT_BYTES: Final = 4 * 2**20
HELD_BYTES: Final = 8 * 2**20
"""The most a sink remembers; beyond it the oldest are gone, and show as gaps."""
MOMENTS_NS: Final = 2_000_000_000
"""How far back it remembers while all is well: longer than a lost connection stays unnoticed."""
AGAIN_S: Final = 4.0
"""From a reconnect to the second repetition; a connection is tried at least every 2 s."""


class EventSink:
    """Collects the events of one source; `tee` gets each at once (an origin's own file)."""

    def __init__(
        self,
        bus: Bus,
        topic: str,
        *,
        source: str,
        incarnation: int,
        boot: str,
        now_ns: Callable[[], int],
        tee: Callable[[Envelope], None] | None = None,
    ) -> None:
        self._bus = bus
        self._topic = topic
        self._source = source
        self._incarnation = incarnation
        self._boot = boot
        self._now_ns = now_ns
        self._tee = tee
        self._seq = 0
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._recent: deque[tuple[int, bytes]] = deque()
        self._recent_bytes = 0
        self._down_since_ns: int | None = None
        self._again: asyncio.TimerHandle | None = None

    def emit(self, event: AnyEvent, *, t: int | None = None) -> None:
        """Say it, at `t` on this host's monotonic clock (now)."""
        now = self._now_ns()
        envelope = Envelope(
            t=now if t is None else t,
            source=self._source,
            incarnation=self._incarnation,
            seq=self._seq,
            event=event,
            boot=self._boot,
        )
        self._seq += 1
        if self._tee is not None:
            self._tee(envelope)
        encoded = encode(envelope)
        self._remember(now, encoded)
        self._waiting.append(encoded)
        self._bytes += len(encoded)
        if self._bytes > SPLIT_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Hand what waits to the connection; without one it is said after the reconnect."""
        waiting = self._take_waiting()
        if waiting and self._bus.connected:
            self._publish(waiting)

    def on_connection(self, *, up: bool) -> None:
        """The owner of the connection reports that it came up or went down."""
        if not up:
            if self._again is not None:
                self._again.cancel()
                self._again = None
            if self._down_since_ns is None:
                self._down_since_ns = self._now_ns()
        elif self._down_since_ns is not None:
            self._say_recent()
            self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._say_again)

    def close(self) -> None:
        """Say what is still to be said, now: nobody will say it later."""
        if self._again is not None and self._bus.connected:
            self._say_again()
        else:
            self.flush()

    def _say_again(self) -> None:
        assert self._again is not None
        self._again.cancel()
        self._again = None
        self._say_recent()
        self._down_since_ns = None

    def _say_recent(self) -> None:
        self._take_waiting()  # it is among them
        self._publish(encoded for _, encoded in self._recent)

    def _take_waiting(self) -> list[bytes]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        return waiting

    def _remember(self, now_ns: int, encoded: bytes) -> None:
        recent = self._recent
        recent.append((now_ns, encoded))
        self._recent_bytes += len(encoded)
        # Since the connection broke nothing is forgotten for its age.
        oldest_ns = (now_ns if self._down_since_ns is None else self._down_since_ns) - MOMENTS_NS
        while recent[0][0] < oldest_ns or self._recent_bytes > HELD_BYTES:
            self._recent_bytes -= len(recent.popleft()[1])

    def _publish(self, events: Iterable[bytes]) -> None:
        """Publish a list, in parts that the broker takes."""
        part: list[bytes] = []
        size = 0
        for encoded in events:
            part.append(encoded)
            size += len(encoded)
            if size > SPLIT_BYTES:
                self._bus.publish(self._topic, _json_list(part), qos=0)
                part, size = [], 0
        if part:
            self._bus.publish(self._topic, _json_list(part), qos=0)


def _json_list(parts: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"
