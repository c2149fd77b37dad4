"""Counting a run: what `summarise` keeps of its requests and replicas while it reads the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from anyserve.core.counts import (
    Count,
    EndedCount,
    OfferedCount,
    OutcomeCount,
    RoutedCount,
    StartedCount,
)
from anyserve.core.events import (
    AnyEvent,
    AttemptAdmitted,
    AttemptEnded,
    AttemptHandedBack,
    AttemptStarted,
    BusTrouble,
    Envelope,
    FaultInjected,
    PolicyFailed,
    ReplicaChanged,
    ReplicaLoad,
    RequestDelegated,
    RequestOffered,
    RequestOutcome,
    RequestReentered,
    RequestRejected,
    RequestRouted,
    RunEnded,
    RunStarted,
    WorkerChanged,
)
from anyserve.core.order import NEVER
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.replica_names import ReplicaNames
from anyserve.telemetry.request_table import Heard, RequestTable

_NS_PER_S = 1e9
_COMPLETED: Final = "completed"
_WORKER_GONE = frozenset({"exited", "hung", "killed"})
# A class that is not compiled is looked up at each use, unless it is a constant.
_OFFERED: Final = RequestOffered
_ROUTED: Final = RequestRouted
_STARTED: Final = AttemptStarted
_ENDED: Final = AttemptEnded
_OUTCOME: Final = RequestOutcome


class ReplicaTally:
    """One replica: what it did, and what its load reports came to."""

    __slots__ = (
        "comebacks", "completed", "concurrency", "loads", "not_completed", "offers",
        "output_tokens", "running_max", "running_sum", "started", "state", "waiting_max",
        "worker_exits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state: str | None = None
        self.offers: Mapping[str, int | None] = {}
        self.concurrency = 0
        self.started = 0
        self.completed = 0
        self.not_completed: Counter[str] = Counter()
        """Other attempts by status."""
        self.comebacks: Counter[str] = Counter()
        self.output_tokens = 0
        self.worker_exits = 0
        self.loads = 0
        self.running_sum = 0
        self.running_max = 0
        self.waiting_max = 0


class Tally:
    """Counts one run's envelopes, in any order between sources; repeated ones count once."""

    def __init__(self) -> None:
        self.gaps = GapCounter()
        self.requests = RequestTable()
        self.replicas: dict[str, ReplicaTally] = {}
        self.comebacks: Counter[str] = Counter()
        self.bus_troubles: Counter[str] = Counter()
        self.faults = 0
        self.policy_failures = 0
        self.started: RunStarted | None = None
        self.ended: str | None = None
        self._names = ReplicaNames()
        self._speakers: dict[str, ReplicaTally] = {}
        """By source, as far as the source is known."""
        self._spans: dict[str, list[int]] = {}
        """First and last time of each boot."""
        self._first_ns = NEVER
        """When the first event was that was followed."""
        self._last_ns = NEVER
        self._run_span: list[tuple[int, str] | None] = [None, None]
        self._handlers: dict[type, Callable[[int, str, Any], None]] = {
            RequestDelegated: self._delegated,
            RequestReentered: self._reentered,
            RequestRejected: self._rejected,
            AttemptAdmitted: self._admitted,
            AttemptHandedBack: self._handed_back,
            ReplicaChanged: self._replica_changed,
            ReplicaLoad: self._replica_load,
            WorkerChanged: self._worker_changed,
            BusTrouble: self._bus_trouble,
            FaultInjected: self._fault,
            PolicyFailed: self._policy_failed,
        }

    def add(self, envelope: Envelope) -> None:
        """Count one envelope."""
        if not self.gaps.add(envelope.source, envelope.incarnation, envelope.seq):
            return
        t, boot = envelope.t, envelope.boot
        span = self._spans.get(boot)
        if span is None:
            span = self._spans[boot] = [t, t]
        if t > span[1]:
            span[1] = t
        elif t < span[0]:
            span[0] = t
        self._fold(t, envelope.source, envelope.event, boot)

    def follow(self, t: int, source: str, _incarnation: int, _seq: int, event: AnyEvent) -> None:
        """Count one event of a simulation: there none is lost or repeated, or out of order."""
        if self._first_ns == NEVER:
            self._first_ns = t
        self._last_ns = t
        self._fold(t, source, event, "")

    def count(self, t: int, source: str, count: Count) -> None:
        """Count what stands for an event of a simulation."""
        if isinstance(count, OfferedCount):
            self.requests.count_offered(count)
        elif isinstance(count, RoutedCount):
            requests = self.requests
            one = requests.bind(count.id, count.attempt, count.capability, count.replica)
            _wait(one, count.received_ns, t)
        elif isinstance(count, StartedCount):
            # That it was bound was counted before.
            self._speaker(source).started += 1
            if t > count.received_ns:
                self.requests.heard(count.id).queue_ns += t - count.received_ns
        elif isinstance(count, EndedCount):
            self._end(source, count.status, count.n_tokens)
        elif isinstance(count, OutcomeCount):
            self.requests.count_outcome(count)

    def _fold(self, t: int, source: str, event: Any, boot: str) -> None:
        kind = type(event)
        # Those of every request first: compiled, to tell them apart here costs nothing.
        if kind is _OFFERED:
            self._offered(t, source, event)
        elif kind is _ROUTED:
            self._routed(t, source, event)
        elif kind is _STARTED:
            self._attempt_started(t, source, event)
        elif kind is _ENDED:
            self._attempt_ended(t, source, event)
        elif kind is _OUTCOME:
            self._outcome(t, source, event)
        elif (handler := self._handlers.get(kind)) is not None:
            handler(t, source, event)
        elif isinstance(event, RunStarted):
            self._run_started(t, boot, event)
        elif isinstance(event, RunEnded):
            self._run_ended(t, boot, event)

    @property
    def duration_s(self) -> float | None:
        """From `run.started` to `run.ended`, else from the first event to the last one."""
        started, ended = self._run_span
        if started is not None and ended is not None and started[1] == ended[1]:
            return (ended[0] - started[0]) / _NS_PER_S
        spans = [high - low for low, high in self._spans.values()]
        if self._first_ns != NEVER:
            spans.append(self._last_ns - self._first_ns)
        return max(spans) / _NS_PER_S if spans else None

    def _replica(self, name: str) -> ReplicaTally:
        replica = self.replicas.get(name)
        if replica is None:
            replica = self.replicas[name] = ReplicaTally()
        return replica

    def _speaker(self, source: str) -> ReplicaTally:
        """The replica that speaks as `source`."""
        replica = self._speakers.get(source)
        if replica is None:
            replica = self._replica(self._names.of(source))
            if self._names.knows(source):
                self._speakers[source] = replica
        return replica

    def _offered(self, _t: int, _source: str, event: RequestOffered) -> None:
        self.requests.offer(event)

    def _routed(self, t: int, _source: str, event: RequestRouted) -> None:
        one = self.requests.bind(event.id, event.attempt, event.capability, event.replica)
        _wait(one, event.received_ns, t)

    def _delegated(self, _t: int, _source: str, event: RequestDelegated) -> None:
        request = self.requests.heard(event.id)
        request.assigned = True
        request.delegate(event)

    def _reentered(self, _t: int, _source: str, event: RequestReentered) -> None:
        self.comebacks[event.kind] += 1
        if event.kind == "lost":
            replica = event.replica or self.requests.heard(event.id).replica_of(event.attempt)
            if replica:
                self._replica(replica).comebacks["lost"] += 1

    def _rejected(self, t: int, _source: str, event: RequestRejected) -> None:
        if event.received_ns is not None:
            self.requests.heard(event.id).queue_ns += max(0, t - event.received_ns)

    def _admitted(self, _t: int, _source: str, event: AttemptAdmitted) -> None:
        self.requests.heard(event.id).assigned = True

    def _attempt_started(self, t: int, source: str, event: AttemptStarted) -> None:
        one = self.requests.heard(event.id)
        one.assigned = True
        _wait(one, event.received_ns, t)
        self._speaker(source).started += 1

    def _handed_back(self, t: int, source: str, event: AttemptHandedBack) -> None:
        self.requests.heard(event.id).queue_ns += max(0, t - event.received_ns)
        self._speaker(source).comebacks[event.kind] += 1

    def _attempt_ended(self, _t: int, source: str, event: AttemptEnded) -> None:
        self._end(source, event.status, event.n_tokens)

    def _end(self, source: str, status: str, n_tokens: int) -> None:
        replica = self._speaker(source)
        if status == _COMPLETED:
            replica.completed += 1
        else:
            replica.not_completed[status] += 1
        replica.output_tokens += n_tokens

    def _outcome(self, _t: int, _source: str, event: RequestOutcome) -> None:
        self.requests.end(event)

    def _replica_changed(self, _t: int, source: str, event: ReplicaChanged) -> None:
        self._names.learn(source, event)
        replica = self._replica(event.replica)
        replica.state = event.state
        replica.offers = event.offers or replica.offers
        replica.concurrency = event.concurrency or replica.concurrency

    def _replica_load(self, _t: int, source: str, event: ReplicaLoad) -> None:
        self._names.learn(source, event)
        replica = self._replica(event.replica)
        load = event.load
        replica.loads += 1
        replica.running_sum += load.running
        replica.running_max = max(replica.running_max, load.running)
        replica.waiting_max = max(replica.waiting_max, load.waiting)

    def _worker_changed(self, _t: int, source: str, event: WorkerChanged) -> None:
        self._names.learn(source, event)
        replica = self._replica(event.replica)
        if event.state in _WORKER_GONE:
            replica.worker_exits += 1

    def _bus_trouble(self, _t: int, _source: str, event: BusTrouble) -> None:
        self.bus_troubles[event.kind] += event.count

    def _fault(self, _t: int, _source: str, _event: FaultInjected) -> None:
        self.faults += 1

    def _policy_failed(self, _t: int, _source: str, _event: PolicyFailed) -> None:
        self.policy_failures += 1

    def _run_started(self, t: int, boot: str, event: RunStarted) -> None:
        self.started = event
        self._run_span[0] = (t, boot)

    def _run_ended(self, t: int, boot: str, event: RunEnded) -> None:
        self.ended = event.reason
        self._run_span[1] = (t, boot)


def _wait(one: Heard, since_ns: int, now_ns: int) -> None:
    """It waited in a queue."""
    if now_ns > since_ns:
        one.queue_ns += now_ns - since_ns
