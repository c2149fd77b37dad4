"""What `up` shows while the traffic runs: status lines, every event as JSON, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from anyserve.cli.output import OutputClosed
from anyserve.cli.session import Session
from anyserve.core.events import Envelope
from anyserve.core.spec import ClusterSpec
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.source import EventSource
from anyserve.telemetry.views import Level, NoticeView, Snapshot

STATUS_EVERY_S: Final = 5.0
MOST_NOTICES: Final = 8
"""Per status line; a flood of them is counted instead."""
_ALWAYS: Final = ("phase ", "fault: ", "run ended", "scheduler life")
_TEN_SECONDS: Final = 10


class Display(Protocol):
    """Shows a cluster's events until the source ends."""

    async def show(self, source: EventSource) -> None:
        """Read the source to its end."""

    def waiting_for(self) -> str:
        """What an orderly stop would wait for; "" where nothing is known."""

    def traffic_ended(self) -> None:
        """What follows is the tear-down: nobody needs a line for each process."""


def display_for(session: Session, ui: str, cluster: ClusterSpec, *, since_ns: int = 0) -> Display:
    """The display of a `--ui` choice; what happened before `since_ns` is not news."""
    if ui == "json":
        return JsonDisplay(session)
    return PlainDisplay(session, cluster, quiet=ui in {"none", "tui"}, since_ns=since_ns)


class JsonDisplay:
    """Every event as it was said: one line of JSON each, on standard output."""

    def __init__(self, session: Session) -> None:
        self._output = session.output
        self._encoder = msgspec.json.Encoder()
        self._reducer = Reducer()

    async def show(self, source: EventSource) -> None:
        """See `Display`. A reader that leaves does not end the run."""
        listening = True
        async for batch in source:
            self._reducer.apply_all(batch)
            if not listening:
                continue
            try:
                self._output.text(self._encoder.encode_lines(batch).decode())
            except OutputClosed:
                listening = False

    def waiting_for(self) -> str:
        """See `Display`."""
        return _open_requests(self._reducer)

    def traffic_ended(self) -> None:
        """See `Display`. Programs read on."""


class PlainDisplay:
    """A status line every five seconds and what is worth a line of its own, on standard error."""

    def __init__(
        self, session: Session, cluster: ClusterSpec, *, quiet: bool, since_ns: int = 0
    ) -> None:
        self._since_ns = since_ns
        self._diagnostics = session.diagnostics
        self._concurrency = sum(replica.concurrency for replica in cluster.replicas)
        self._quiet = quiet
        self._reducer = Reducer()
        self._said = 0
        self._silenced = 0
        self._seen: NoticeView | None = None

    async def show(self, source: EventSource) -> None:
        """See `Display`."""
        ticking = asyncio.create_task(self._tick(), name="status line")
        try:
            async for batch in source:
                self._take(batch)
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    def waiting_for(self) -> str:
        """See `Display`."""
        return _open_requests(self._reducer)

    def traffic_ended(self) -> None:
        """See `Display`."""
        self._quiet = True

    def _take(self, batch: Sequence[Envelope]) -> None:
        for envelope in batch:
            self._reducer.apply(envelope)
            newest = self._reducer.notices[-1] if self._reducer.notices else None
            if newest is not None and newest is not self._seen:
                self._seen = newest
                if envelope.t >= self._since_ns:
                    self._notice(newest)

    def _notice(self, notice: NoticeView) -> None:
        if self._quiet or not is_notable(notice):
            return
        if self._said >= MOST_NOTICES:
            self._silenced += 1
            return
        self._said += 1
        self._diagnostics.say(f"{_clock(self._reducer, notice.at_ns)}  {notice.text}")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(STATUS_EVERY_S)
            if self._quiet:
                continue
            if self._silenced:
                self._diagnostics.say(f"         … and {self._silenced} more of these")
            self._said = self._silenced = 0
            if self._reducer.run is not None:
                line = status_line(self._reducer.snapshot(), self._concurrency)
                self._diagnostics.say(line)


def is_notable(notice: NoticeView) -> bool:
    """Whether someone who watches a run wants this line."""
    return notice.level is not Level.INFO or notice.text.startswith(_ALWAYS)


def status_line(snapshot: Snapshot, concurrency: int) -> str:
    """Where the run is, in one line; unknown is a dash, zero is 0."""
    counts = snapshot.counters
    at_s = 0.0 if snapshot.run is None else (snapshot.now_ns - snapshot.run.started_ns) / 1e9
    planned_s = 0.0 if snapshot.run is None else snapshot.run.planned_s
    planned = 0 if snapshot.run is None else snapshot.run.planned_requests
    queued = sum(queue.queued for queue in snapshot.queues)
    running = sum(replica.running or 0 for replica in snapshot.replicas)
    recent = [one for one in snapshot.seconds if one.second > int(at_s) - _TEN_SECONDS - 1]
    tokens = sum(one.output_tokens for one in recent) / max(1, min(_TEN_SECONDS, int(at_s) or 1))
    parts = [
        f"{at_s:4.0f} / {planned_s:.0f} s",
        f"offered {counts.offered - counts.calls} of {planned}",
        *([f"calls {counts.calls}"] if counts.calls else []),
        f"done {counts.completed}",
        f"queue {queued}",
        f"running {running}/{concurrency}",
        f"delegated {counts.delegations}",
        f"{tokens:.0f} tok/s",
        f"ttft p50/p95 {_ms(snapshot.ttft_p50_ms)}/{_ms(snapshot.ttft_p95_ms)} ms",
    ]
    for name in ("failed", "rejected", "expired", "cancelled"):
        count = getattr(counts, name)
        if count:
            parts.append(f"{name} {count}")
    ready = sum(replica.state in {"ready", "saturated"} for replica in snapshot.replicas)
    if ready < len(snapshot.replicas):
        parts.append(f"replicas ready {ready}/{len(snapshot.replicas)}")
    return "  ".join(parts)


def _open_requests(reducer: Reducer) -> str:
    count = len(reducer.requests)
    if not count:
        return ""
    return f"{count} request{'' if count == 1 else 's'} to end"


def _clock(reducer: Reducer, at_ns: int) -> str:
    if reducer.run is None:
        return "        "
    return f"{(at_ns - reducer.run.started_ns) / 1e9:6.1f} s"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"  # noqa: RUF001 - means unknown everywhere
