"""A run for ui.perfetto.dev and chrome://tracing, in the Trace Event Format (JSON).

One process a part of the cluster: the clients' requests from first wish to outcome, the scheduler's
queues, and each replica with its slots and its queue. Arrows follow each request through its hops;
counters show queue depths and loads; flags show phases, faults and states of replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

import msgspec

from anyserve.core.events import (
    Envelope,
    FaultInjected,
    PhaseStarted,
    ReplicaChanged,
    ReplicaLoad,
    SchedulerLoad,
    WorkerChanged,
)
from anyserve.telemetry.export.lanes import Lanes
from anyserve.telemetry.export.requests import TracedRequest, WallClock
from anyserve.telemetry.trace_model import Segment, SegmentKind

ENGINE: Final = frozenset({SegmentKind.ENGINE_WAIT, SegmentKind.PREFILL, SegmentKind.DECODE,
                           SegmentKind.LOST_WORK})  # fmt: skip
REPLICA_WAIT: Final = frozenset({SegmentKind.ENTRY_QUEUE, SegmentKind.REPLICA_QUEUE})
REQUESTS, SCHEDULER = 1, 2
_FIRST_REPLICA = 10
_QUEUE_LANES = 1000
"""Threads from here on are lanes of a queue, below are slots."""
_SHORTEST_NS = 1000
"""A hop that took no time is drawn this long: an arrow needs something to end in."""
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Span:
    """A slice on a track, with slices inside it; times in ns since the run's first moment."""

    process: int
    kind: str
    name: str
    start_ns: int
    end_ns: int
    args: Record
    parts: tuple[tuple[str, int, int], ...] = ()
    flow: int = 0
    step: str = ""
    """`s` begins the arrows of a request, `t` goes on, `f` ends."""


@dataclass(slots=True)
class _Tracks:
    """Process ids of replicas, and the lanes of each process."""

    replicas: dict[str, int] = field(default_factory=dict)
    lanes: dict[tuple[int, str], Lanes] = field(default_factory=dict)

    def replica(self, name: str) -> int:
        return self.replicas.setdefault(name, _FIRST_REPLICA + len(self.replicas))

    def thread(self, span: _Span) -> int:
        lanes = self.lanes.setdefault((span.process, span.kind), Lanes())
        first = _QUEUE_LANES if span.kind == "queue" else 1
        return first + lanes.take(span.start_ns, span.end_ns)


def write_perfetto(
    envelopes: Sequence[Envelope], traced: Iterable[TracedRequest], file: TextIO
) -> int:
    """Write the whole trace of a log and its requests; returns how many it shows."""
    clock = WallClock(envelopes)
    requests = list(traced)
    base_ns = _base(envelopes, requests, clock)
    tracks = _Tracks()
    file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
    encode = msgspec.json.Encoder().encode
    first = True
    for record in _records(envelopes, requests, clock, base_ns, tracks):
        file.write(("" if first else ",\n") + encode(record).decode())
        first = False
    file.write("\n]}\n")
    return len(requests)


def _records(
    envelopes: Sequence[Envelope],
    requests: Sequence[TracedRequest],
    clock: WallClock,
    base_ns: int,
    tracks: _Tracks,
) -> Iterator[Record]:
    for envelope in envelopes:
        if isinstance(envelope.event, ReplicaChanged):
            tracks.replica(envelope.event.replica)
    spans = [
        span
        for number, request in enumerate(requests, 1)
        for span in _spans(request, number, clock, base_ns, tracks)
    ]
    for span in sorted(spans, key=lambda one: one.start_ns):
        yield from _slices(span, tracks.thread(span))
    for envelope in envelopes:
        at_us = (clock.at_ns(envelope.boot, envelope.t) - base_ns) / 1000
        yield from _said(envelope, max(0.0, at_us), tracks)
    yield from _names(tracks)


def _base(
    envelopes: Sequence[Envelope], requests: Sequence[TracedRequest], clock: WallClock
) -> int:
    times = [clock.at_ns(one.boot, one.t) for one in envelopes]
    times += [clock.at_ns(one.boot, one.trace.intended_ns) for one in requests]
    return min(times, default=0)


def _spans(
    request: TracedRequest, number: int, clock: WallClock, base_ns: int, tracks: _Tracks
) -> Iterator[_Span]:
    trace = request.trace
    start = clock.at_ns(request.boot, trace.intended_ns) - base_ns
    name = f"{trace.asked} #{trace.id.rpartition('/')[2]}"
    args: Record = {
        "id": trace.id,
        "outcome": trace.outcome or "unknown",
        "served_by": trace.served_by,
        "hops": trace.hops,
        "prompt_tokens": trace.prompt_tokens,
        "output_tokens": trace.n_tokens,
        "ways_back": [f"{one.kind} by {one.replica}: {one.reason}" for one in trace.comebacks],
    }
    yield _Span(
        REQUESTS, "requests", name, start, start + max(trace.total_ns, _SHORTEST_NS), args,
        tuple((one.name, start + one.start_ns, start + one.end_ns) for one in trace.segments),
        number, "s",
    )  # fmt: skip
    for group in _grouped(trace.segments):
        yield _part(group, name, number, start, tracks)


def _grouped(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Stretches of one request that belong on one track, one after the other."""
    group: list[Segment] = []
    for segment in segments:
        if group and _place(group[-1]) != _place(segment):
            yield group
            group = []
        if _place(segment) is not None:
            group.append(segment)
    if group:
        yield group


def _place(segment: Segment) -> tuple[str, str, int | None] | None:
    if segment.kind is SegmentKind.SCHEDULER_QUEUE:
        return ("scheduler", "", None)
    if segment.kind in ENGINE:
        return ("slot", segment.where, segment.attempt)
    if segment.kind in REPLICA_WAIT:
        return ("queue", segment.where, segment.attempt)
    return None


def _part(group: list[Segment], name: str, number: int, start: int, tracks: _Tracks) -> _Span:
    place = _place(group[0])
    assert place is not None
    kind, where, attempt = place
    return _Span(
        process=SCHEDULER if kind == "scheduler" else tracks.replica(where),
        kind="queue" if kind == "scheduler" else kind,
        name=name,
        start_ns=start + group[0].start_ns,
        end_ns=start + max(group[-1].end_ns, group[0].start_ns + _SHORTEST_NS),
        args={"attempt": attempt, "notes": [one.note for one in group if one.note]},
        parts=tuple((one.name, start + one.start_ns, start + one.end_ns) for one in group),
        flow=number,
        step="t",
    )


def _slices(span: _Span, thread: int) -> Iterator[Record]:
    track = {"pid": span.process, "tid": thread}
    yield {
        "ph": "X", "cat": span.kind, "name": span.name, "ts": span.start_ns / 1000,
        "dur": (span.end_ns - span.start_ns) / 1000, "args": span.args, **track,
    }  # fmt: skip
    for name, start_ns, end_ns in span.parts:
        if end_ns > start_ns:
            yield {
                "ph": "X", "cat": "segment", "name": name, "ts": start_ns / 1000,
                "dur": (end_ns - start_ns) / 1000, **track,
            }  # fmt: skip
    arrow = {"cat": "request", "name": "request", "id": span.flow, "bp": "e", **track}
    yield {"ph": span.step, "ts": span.start_ns / 1000, **arrow}
    if span.step == "s":
        yield {"ph": "f", "ts": max(span.start_ns, span.end_ns - 1) / 1000, **arrow}


def _said(envelope: Envelope, at_us: float, tracks: _Tracks) -> Iterator[Record]:
    """Counters and flags."""
    match envelope.event:
        case ReplicaLoad(replica=replica, load=load):
            values = {"running": load.running, "waiting": load.waiting}
            yield _counter("requests", tracks.replica(replica), at_us, values)
            if load.kv_usage is not None:
                usage = {"used": load.kv_usage}
                yield _counter("KV cache", tracks.replica(replica), at_us, usage)
        case SchedulerLoad(queues=queues) if queues:
            yield _counter("queues", SCHEDULER, at_us, dict(queues))
        case PhaseStarted(name=name):
            yield _flag(f"phase {name}", REQUESTS, at_us, "g")
        case FaultInjected(action=action, target=target):
            yield _flag(f"fault: {action} {target}", REQUESTS, at_us, "g")
        case ReplicaChanged(replica=replica, state=state):
            yield _flag(state, tracks.replica(replica), at_us, "p")
        case WorkerChanged(replica=replica, state=state):
            yield _flag(f"worker {state}", tracks.replica(replica), at_us, "p")
        case _:
            pass


def _counter(name: str, process: int, at_us: float, values: Record) -> Record:
    return {"ph": "C", "name": name, "pid": process, "ts": at_us, "args": values}


def _flag(name: str, process: int, at_us: float, scope: str) -> Record:
    return {"ph": "i", "name": name, "pid": process, "tid": 0, "ts": at_us, "s": scope}


def _names(tracks: _Tracks) -> Iterator[Record]:
    processes = {
        REQUESTS: "requests",
        SCHEDULER: "scheduler",
        **{pid: f"replica {name}" for name, pid in tracks.replicas.items()},
    }
    for order, (process, name) in enumerate(processes.items()):
        yield _meta("process_name", process, 0, {"name": name})
        yield _meta("process_sort_index", process, 0, {"sort_index": order})
    for (process, kind), lanes in tracks.lanes.items():
        first = _QUEUE_LANES if kind == "queue" else 1
        label = {"queue": "queue", "slot": "slot"}.get(kind, "request")
        for lane in range(lanes.count):
            yield _meta("thread_name", process, first + lane, {"name": f"{label} {lane + 1}"})


def _meta(name: str, process: int, thread: int, args: Record) -> Record:
    return {"ph": "M", "name": name, "pid": process, "tid": thread, "args": args}
