"""What the report's charts are drawn from: a run's events as series over its seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from anyserve.core.events import (
    Envelope,
    FaultInjected,
    PhaseStarted,
    ReplicaChanged,
    ReplicaLoad,
    RequestOffered,
    RequestOutcome,
    RunStarted,
    SchedulerLoad,
)
from anyserve.telemetry.export.requests import WallClock
from anyserve.telemetry.html.svg import Marker, Point
from anyserve.telemetry.request_groups import column
from anyserve.telemetry.request_table import COMPLETED, RequestTable
from anyserve.telemetry.stats import NS_PER_MS
from anyserve.telemetry.trace import Trace, build_trace

NS_PER_S = 1e9
MAX_BINS = 180
SAMPLED_TRACES = 1000
"""So many requests, evenly chosen, say where time went on average."""


@dataclass(slots=True)
class ReplicaSeries:
    """One replica's load over time."""

    concurrency: int = 0
    running: list[Point] = field(default_factory=list)
    waiting: list[Point] = field(default_factory=list)


@dataclass(slots=True)
class RunSeries:
    """Times in seconds from the beginning of the run's traffic."""

    end_s: float = 0.0
    bin_s: float = 1.0
    offered: list[Point] = field(default_factory=list)
    completed: list[Point] = field(default_factory=list)
    tokens: list[Point] = field(default_factory=list)
    queued: list[Point] = field(default_factory=list)
    replicas: dict[str, ReplicaSeries] = field(default_factory=dict)
    markers: list[Marker] = field(default_factory=list)

    def busy(self, replica: str, bins: int) -> list[float | None]:
        """The share of busy slots in each of `bins` equal stretches; None before any report."""
        series = self.replicas[replica]
        return _held([(at, value / max(1, series.concurrency)) for at, value in series.running],
                     self.end_s, bins)  # fmt: skip

    def total_running(self) -> list[Point]:
        """Busy slots over all replicas."""
        return _total([one.running for one in self.replicas.values()])

    def total_waiting(self) -> list[Point]:
        """Requests in entry queues over all replicas."""
        return _total([one.waiting for one in self.replicas.values()])


def read_series(envelopes: Sequence[Envelope], requests: RequestTable | None = None) -> RunSeries:
    """The series of a run. Clocks of several boots are laid side by side by their wall clocks.

    `requests`: all of them, where the events are those of a sample, on one clock.
    """
    clock = WallClock(envelopes)
    reader = _Reader(clock, _zero_ns(envelopes, clock))
    for envelope in envelopes:
        reader.add(envelope)
    if requests is not None:
        reader.take(requests)
    return reader.finish()


def counted(envelopes: Iterable[Envelope]) -> RequestTable:
    """Every request with its outcome: what distributions are made of, and no more."""
    table = RequestTable()
    for envelope in envelopes:
        event = envelope.event
        if isinstance(event, RequestOffered):
            table.offer(event)
        elif isinstance(event, RequestOutcome):
            table.end(event)
    return table


def sampled_traces(envelopes: Sequence[Envelope], count: int = SAMPLED_TRACES) -> list[Trace]:
    """Traces of completed requests, evenly chosen where there are more than `count`."""
    completed = [
        one.event.id
        for one in envelopes
        if isinstance(one.event, RequestOutcome) and one.event.outcome == "completed"
    ]
    every = max(1, len(completed) // count)
    found: dict[str, list[Envelope]] = {name: [] for name in completed[::every][:count]}
    for envelope in envelopes:
        kept = found.get(getattr(envelope.event, "id", ""))
        if kept is not None:
            kept.append(envelope)
    return [
        build_trace(each, name)
        for name, each in found.items()
        if any(isinstance(one.event, RequestOffered) for one in each)
    ]


def mean_segments(traces: Iterable[Trace]) -> Mapping[str, Mapping[str, float]]:
    """Capability asked -> kind of segment -> mean milliseconds, kinds in their order of time."""
    sums: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for trace in traces:
        counts[trace.asked] = counts.get(trace.asked, 0) + 1
        kinds = sums.setdefault(trace.asked, {})
        for segment in trace.segments:
            kinds[segment.name] = kinds.get(segment.name, 0.0) + segment.duration_ns / NS_PER_MS
    return {
        name: {kind: total / counts[name] for kind, total in kinds.items()}
        for name, kinds in sorted(sums.items())
    }


class _Reader:
    def __init__(self, clock: WallClock, zero_ns: int) -> None:
        self._clock = clock
        self._zero_ns = zero_ns
        self._series = RunSeries()
        self._intended: dict[str | int, float] = {}
        self._ended: list[tuple[float, int, bool]] = []
        self._queues: list[Point] = []
        self._end_s = 0.0

    def add(self, envelope: Envelope) -> None:
        """Read one envelope."""
        series, event = self._series, envelope.event
        at = self._at(envelope.boot, envelope.t)
        match event:
            case RequestOffered():
                self._intended.setdefault(event.id, self._at(envelope.boot, event.intended_ns))
                self._end_s = max(self._end_s, at)
            case RequestOutcome():
                end = self._at(envelope.boot, event.end_ns)
                self._ended.append((end, event.n_tokens, event.outcome == "completed"))
                self._end_s = max(self._end_s, end)
            case ReplicaChanged():
                replica = series.replicas.setdefault(event.replica, ReplicaSeries())
                replica.concurrency = event.concurrency or replica.concurrency
                if event.state in {"lost", "stopped"}:
                    replica.running.append((at, 0.0))
                    replica.waiting.append((at, 0.0))
            case ReplicaLoad():
                replica = series.replicas.setdefault(event.replica, ReplicaSeries())
                replica.running.append((at, float(event.load.running)))
                replica.waiting.append((at, float(event.load.waiting)))
            case SchedulerLoad():
                self._queues.append((at, float(sum(event.queues.values()))))
            case PhaseStarted():
                series.markers.append(Marker(at, event.name, "phase"))
            case FaultInjected():
                series.markers.append(Marker(at, f"{event.action} {event.target}", "fault"))
            case _:
                pass

    def take(self, requests: RequestTable) -> None:
        """These, and not those whose events were read."""
        outcomes = [way.outcome for way in requests.ways]
        intended, ends, tokens, ways = (
            column(requests, name).tolist() for name in ("intended_ns", "end_ns", "n_tokens", "way")
        )
        self._intended = {row: self._at("", at_ns) for row, at_ns in enumerate(intended)}
        self._ended = [
            (self._at("", at_ns), count, outcomes[way] == COMPLETED)
            for at_ns, count, way in zip(ends, tokens, ways, strict=True)
            if outcomes[way] is not None
        ]
        self._end_s = max((end for end, _, _ in self._ended), default=self._end_s)

    def finish(self) -> RunSeries:
        """The series, cut to the run."""
        series = self._series
        series.end_s = max(self._end_s, 1e-3)
        series.bin_s = _bin_s(series.end_s)
        series.offered = self._rate((at, 1.0) for at in self._intended.values())
        series.completed = self._rate((at, 1.0) for at, _, done in self._ended if done)
        series.tokens = self._rate((at, float(tokens)) for at, tokens, _ in self._ended)
        series.queued = _cut(self._queues, series.end_s)
        for replica in series.replicas.values():
            replica.running = _cut(replica.running, series.end_s)
            replica.waiting = _cut(replica.waiting, series.end_s)
        return series

    def _at(self, boot: str, t: int) -> float:
        return (self._clock.at_ns(boot, t) - self._zero_ns) / NS_PER_S

    def _rate(self, values: Iterable[tuple[float, float]]) -> list[Point]:
        """Sums per second, a value a bin. A last bin below half its width joins the one before."""
        width, end_s = self._series.bin_s, self._series.end_s
        count = max(1, round(end_s / width))
        bins = [0.0] * count
        for at, value in values:
            bins[min(max(0, int(at / width)), count - 1)] += value
        last_s = end_s - (count - 1) * width
        rates = [total / width for total in bins[:-1]] + [bins[-1] / last_s]
        points = [(index * width, rate) for index, rate in enumerate(rates)]
        return [*points, (end_s, rates[-1])]


def _zero_ns(envelopes: Sequence[Envelope], clock: WallClock) -> int:
    for envelope in envelopes:
        if isinstance(envelope.event, RunStarted):
            return clock.at_ns(envelope.boot, envelope.t)
    return min((clock.at_ns(one.boot, one.t) for one in envelopes), default=0)


def _bin_s(end_s: float) -> float:
    """One second, or more where a run is long."""
    width = 1.0
    for step in (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0):
        width = step
        if end_s / step <= MAX_BINS:
            break
    return width


def _cut(points: Sequence[Point], end_s: float) -> list[Point]:
    """What falls into the run; the last value before it holds at its beginning."""
    before = [value for at, value in points if at < 0]
    inside = [(at, value) for at, value in points if 0 <= at <= end_s]
    first = [(0.0, before[-1])] if before else []
    found = [*first, *inside]
    return [*found, (end_s, found[-1][1])] if found else []


def _total(series: Sequence[Sequence[Point]]) -> list[Point]:
    """The sum of step functions, at every moment that one of them changes."""
    changes = sorted((at, index, value) for index, one in enumerate(series) for at, value in one)
    now = [0.0] * len(series)
    height = 0.0
    total: list[Point] = []
    for at, index, value in changes:
        height += value - now[index]  # exact: they are whole numbers
        now[index] = value
        if total and total[-1][0] == at:
            total.pop()
        total.append((at, height))
    return total


def _held(points: Sequence[Point], end_s: float, bins: int) -> list[float | None]:
    """The highest value in each bin; an empty bin keeps the last one."""
    width = end_s / bins
    found: list[float | None] = [None] * bins
    for at, value in points:
        index = min(int(at / width), bins - 1)
        known = found[index]
        found[index] = value if known is None else max(known, value)
    last: float | None = None
    latest: dict[int, float] = {min(int(at / width), bins - 1): value for at, value in points}
    for index in range(bins):
        if found[index] is None:
            found[index] = last
        last = latest.get(index, last)
    return found
