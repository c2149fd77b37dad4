"""How a process says what happened: numbered, timed, batched, and published as `event/<source>`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from anyserve.core.events import AnyEvent, Envelope
from anyserve.runtime.bus.base import Bus
from anyserve.runtime.wire import encode

FLUSH_S: Final = 0.05
"""Events wait this long for company: the bus costs per message, and observers paint at 4 Hz."""
SPLIT_BYTES: Final = 4 * 2**20


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

    def emit(self, event: AnyEvent, *, t: int | None = None) -> None:
        """Say it, at `t` on this host's monotonic clock (now)."""
        envelope = Envelope(
            t=self._now_ns() if t is None else t,
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
        self._waiting.append(encoded)
        self._bytes += len(encoded)
        if self._bytes > SPLIT_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Hand what waits to the connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            payload = _json_list(self._waiting)
            self._waiting, self._bytes = [], 0
            self._bus.publish(self._topic, payload, qos=0)


def _json_list(parts: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"
