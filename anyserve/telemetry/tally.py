"""Counting a run: what `summarise` keeps of each request and replica while it reads the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

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
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.replica_names import ReplicaNames

_NS_PER_S = 1e9
_WORKER_GONE = frozenset({"exited", "hung", "killed"})


class RequestTally:
    """One request: what it asked, what it came to, how long it waited on the way."""

    __slots__ = (
        "assigned", "capability", "delegated", "intended_ns", "outcome", "prompt_tokens",
        "queue_ns", "routed",
    )  # fmt: skip

    def __init__(self) -> None:
        self.assigned = False
        self.capability: str | None = None
        """None until its `offered` was seen."""
        self.prompt_tokens = 0
        self.intended_ns = 0
        self.outcome: RequestOutcome | None = None
        self.queue_ns = 0
        self.delegated: tuple[RequestDelegated, ...] = ()
        self.routed: tuple[tuple[int, str, str], ...] = ()
        """(attempt, capability, replica) of each routing."""

    @property
    def delegations(self) -> int:
        """Delegations that the scheduler took into account."""
        return len(self.delegated)

    @property
    def completed(self) -> bool:
        """Whether the client got its whole answer."""
        return self.outcome is not None and self.outcome.outcome == "completed"

    @property
    def ttft_ns(self) -> int | None:
        """From the intended time to the client's first token."""
        first = None if self.outcome is None else self.outcome.first_ns
        return None if first is None else first - self.intended_ns

    @property
    def tpot_ns(self) -> float | None:
        """(last - first) / (tokens - 1); None below two tokens."""
        outcome = self.outcome
        if outcome is None or outcome.first_ns is None or outcome.n_tokens <= 1:
            return None
        return (outcome.end_ns - outcome.first_ns) / (outcome.n_tokens - 1)

    @property
    def e2e_ns(self) -> int | None:
        """From the intended time to the outcome."""
        return None if self.outcome is None else self.outcome.end_ns - self.intended_ns

    def replica_of(self, attempt: int) -> str | None:
        """The replica this attempt was bound to, where the scheduler bound it."""
        return next((replica for number, _, replica in self.routed if number == attempt), None)

    def target_of(self, delegated: RequestDelegated) -> str:
        """The capability it was routed to after this delegation."""
        later = [routed for routed in self.routed if routed[0] > delegated.attempt]
        return min(later)[1] if later else delegated.to_capability


class ReplicaTally:
    """One replica: what it did, and what its load reports came to."""

    __slots__ = (
        "comebacks", "concurrency", "ended", "loads", "offers", "output_tokens", "running_max",
        "running_sum", "started", "state", "waiting_max", "worker_exits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state: str | None = None
        self.offers: Mapping[str, int | None] = {}
        self.concurrency = 0
        self.started = 0
        self.ended: Counter[str] = Counter()
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
        self.requests: dict[str, RequestTally] = {}
        self.replicas: dict[str, ReplicaTally] = {}
        self.comebacks: Counter[str] = Counter()
        self.bus_troubles: Counter[str] = Counter()
        self.faults = 0
        self.policy_failures = 0
        self.started: RunStarted | None = None
        self.ended: str | None = None
        self._names = ReplicaNames()
        self._spans: dict[str, list[int]] = {}
        """First and last time of each boot."""
        self._run_span: list[tuple[int, str] | None] = [None, None]
        self._served: dict[str, list[RequestTally]] | None = None
        self._handlers: dict[type, Callable[[int, str, Any], None]] = {
            RequestOffered: self._offered,
            RequestRouted: self._routed,
            RequestDelegated: self._delegated,
            RequestReentered: self._reentered,
            RequestRejected: self._rejected,
            AttemptAdmitted: self._admitted,
            AttemptStarted: self._attempt_started,
            AttemptHandedBack: self._handed_back,
            AttemptEnded: self._attempt_ended,
            RequestOutcome: self._outcome,
            ReplicaChanged: self._replica_changed,
            ReplicaLoad: self._replica_load,
            WorkerChanged: self._worker_changed,
            BusTrouble: self._bus_trouble,
            FaultInjected: self._fault,
            PolicyFailed: self._policy_failed,
        }

    def add(self, envelope: Envelope) -> None:
        """Count one envelope."""
        self.count(
            envelope.t,
            envelope.source,
            envelope.incarnation,
            envelope.seq,
            envelope.event,
            envelope.boot,
        )

    def count(  # noqa: PLR0917 - called for every event
        self,
        t: int,
        source: str,
        incarnation: int,
        seq: int,
        event: AnyEvent,
        boot: str = "",
    ) -> None:
        """Count one event; the arguments are the parts of its envelope."""
        if not self.gaps.add(source, incarnation, seq):
            return
        span = self._spans.get(boot)
        if span is None:
            span = self._spans[boot] = [t, t]
        if t > span[1]:
            span[1] = t
        elif t < span[0]:
            span[0] = t
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(t, source, event)
        elif isinstance(event, RunStarted):
            self._run_started(t, boot, event)
        elif isinstance(event, RunEnded):
            self._run_ended(t, boot, event)

    @property
    def offered(self) -> list[RequestTally]:
        """Every request whose `request.offered` was seen, in the order they were first heard of."""
        return [one for one in self.requests.values() if one.capability is not None]

    @property
    def duration_s(self) -> float | None:
        """From `run.started` to `run.ended`, else from the first event to the last one."""
        started, ended = self._run_span
        if started is not None and ended is not None and started[1] == ended[1]:
            return (ended[0] - started[0]) / _NS_PER_S
        spans = [high - low for low, high in self._spans.values()]
        return max(spans) / _NS_PER_S if spans else None

    @property
    def delegation_reasons(self) -> Counter[str]:
        """Delegations by reason."""
        return Counter(said.reason for one in self.offered for said in one.delegated)

    def edges(self) -> dict[str, int]:
        """Delegations by "capability at the hand-back->capability it was routed to next"."""
        counts = Counter(
            f"{said.from_capability}->{one.target_of(said)}"
            for one in self.offered
            for said in one.delegated
        )
        return dict(sorted(counts.items()))

    def served_by(self, replica: str) -> list[RequestTally]:
        """The completed requests whose answer came from this replica."""
        if self._served is None:
            self._served = {}
            for one in self.offered:
                if one.completed and one.outcome is not None and one.outcome.served_by:
                    self._served.setdefault(one.outcome.served_by, []).append(one)
        return self._served.get(replica, [])

    def _request(self, request_id: str) -> RequestTally:
        request = self.requests.get(request_id)
        if request is None:
            request = self.requests[request_id] = RequestTally()
        return request

    def _replica(self, name: str) -> ReplicaTally:
        replica = self.replicas.get(name)
        if replica is None:
            replica = self.replicas[name] = ReplicaTally()
        return replica

    def _offered(self, _t: int, _source: str, event: RequestOffered) -> None:
        request = self._request(event.id)
        request.capability = event.capability
        request.prompt_tokens = event.prompt_tokens
        request.intended_ns = event.intended_ns

    def _routed(self, t: int, _source: str, event: RequestRouted) -> None:
        request = self._request(event.id)
        request.assigned = True
        request.queue_ns += max(0, t - event.received_ns)
        request.routed += ((event.attempt, event.capability, event.replica),)

    def _delegated(self, _t: int, _source: str, event: RequestDelegated) -> None:
        request = self._request(event.id)
        request.assigned = True
        if all(event.attempt != said.attempt for said in request.delegated):
            request.delegated += (event,)

    def _reentered(self, _t: int, _source: str, event: RequestReentered) -> None:
        self.comebacks[event.kind] += 1
        if event.kind == "lost":
            replica = event.replica or self._request(event.id).replica_of(event.attempt)
            if replica:
                self._replica(replica).comebacks["lost"] += 1

    def _rejected(self, t: int, _source: str, event: RequestRejected) -> None:
        if event.received_ns is not None:
            self._request(event.id).queue_ns += max(0, t - event.received_ns)

    def _admitted(self, _t: int, _source: str, event: AttemptAdmitted) -> None:
        self._request(event.id).assigned = True

    def _attempt_started(self, t: int, source: str, event: AttemptStarted) -> None:
        request = self._request(event.id)
        request.assigned = True
        request.queue_ns += max(0, t - event.received_ns)
        self._replica(self._names.of(source)).started += 1

    def _handed_back(self, t: int, source: str, event: AttemptHandedBack) -> None:
        self._request(event.id).queue_ns += max(0, t - event.received_ns)
        self._replica(self._names.of(source)).comebacks[event.kind] += 1

    def _attempt_ended(self, _t: int, source: str, event: AttemptEnded) -> None:
        replica = self._replica(self._names.of(source))
        replica.ended[event.status] += 1
        replica.output_tokens += event.n_tokens

    def _outcome(self, _t: int, _source: str, event: RequestOutcome) -> None:
        request = self._request(event.id)
        if request.outcome is None:
            request.outcome = event
            self._served = None

    def _replica_changed(self, _t: int, source: str, event: ReplicaChanged) -> None:
        self._names.learn(source, event)
        replica = self._replica(event.replica)
        replica.state = event.state
        replica.offers = event.offers or replica.offers
        replica.concurrency = event.concurrency or replica.concurrency

    def _replica_load(self, _t: int, source: str, event: ReplicaLoad) -> None:
        self._names.learn(source, event)
        replica = self._replica(event.replica)
        replica.loads += 1
        replica.running_sum += event.load.running
        replica.running_max = max(replica.running_max, event.load.running)
        replica.waiting_max = max(replica.waiting_max, event.load.waiting)

    def _worker_changed(self, _t: int, source: str, event: WorkerChanged) -> None:
        self._names.learn(source, event)
        if event.state in _WORKER_GONE:
            self._replica(event.replica).worker_exits += 1

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
