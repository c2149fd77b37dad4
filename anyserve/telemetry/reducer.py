"""State + Envelope -> State: one pure fold that every view of a cluster stands on.

The reducer owns its state and changes it in place, for speed; `snapshot()` gives frozen views. It
reads no clock, does no I/O and makes no choice that depends on anything but the envelopes it was
given. Sources are not in step with each other: a `routed` may come before its `offered`, and
within a request everything is ordered by attempt number, not by arrival.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anyserve.core.events import (
    AttemptAdmitted,
    AttemptEnded,
    AttemptFirstToken,
    AttemptHandedBack,
    AttemptStarted,
    BusTrouble,
    Envelope,
    FaultInjected,
    PhaseStarted,
    PolicyFailed,
    ReplicaChanged,
    ReplicaLoad,
    RequestDelegated,
    RequestFirstToken,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestReentered,
    RequestRejected,
    RequestRouted,
    RequestSubmitted,
    RunEnded,
    RunStarted,
    SchedulerLoad,
    SchedulerStarted,
    StreamThinned,
    TrafficRate,
    WorkerChanged,
)
from anyserve.errors import AnyServeError
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.lately import Lately
from anyserve.telemetry.notices import notice, subject
from anyserve.telemetry.reducer_snapshot import take_snapshot
from anyserve.telemetry.reducer_state import (
    OTHER_CAPABILITIES,
    Ledger,
    Memory,
    ReplicaCondition,
    RequestState,
    Start,
)
from anyserve.telemetry.reducer_sums import fold_thinned
from anyserve.telemetry.replica_names import ReplicaNames
from anyserve.telemetry.series import Series
from anyserve.telemetry.stats import NS_PER_MS
from anyserve.telemetry.sums import REENTRY_COUNTS
from anyserve.telemetry.views import (
    FaultView,
    NoticeView,
    PhaseView,
    RunView,
    Snapshot,
    Stage,
)

if TYPE_CHECKING:
    from anyserve.telemetry.trace import Trace

_NS_PER_S = 1_000_000_000


class Reducer:
    """Folds envelopes into the state of a cluster. Repeated envelopes count once.

    `on_settled` is told each request whose offer and outcome have both been seen, once.
    """

    def __init__(
        self,
        memory: Memory | None = None,
        *,
        on_settled: Callable[[RequestState], None] | None = None,
    ) -> None:
        self.memory = Memory() if memory is None else memory
        self.gaps = GapCounter()
        self.one_in = 1
        """One request in so many is told; of the others there are only sums."""
        self.untold = 0
        """Requests in flight that are not told."""
        self.unheard = 0
        """Events that the thinner of the stream missed itself."""
        self.now_ns = 0
        self.run: RunView | None = None
        self.epoch: int | None = None
        self.policy: str | None = None
        self.counts: Counter[str] = Counter()
        self.by_code: Counter[str] = Counter()
        self.by_capability: dict[str, Counter[str]] = {}
        self.delegations: Counter[tuple[str, str, str]] = Counter()
        """By (capability at the hand-back, rung the scheduler chose, reason)."""
        self.queues: dict[str, int] = {}
        self.routing: dict[tuple[str, str], list[int]] = {}
        self.requests: OrderedDict[str, RequestState] = OrderedDict()
        self.unoffered: OrderedDict[str, RequestState] = OrderedDict()
        self.settled: OrderedDict[str, RequestState] = OrderedDict()
        self.replicas: dict[str, ReplicaCondition] = {}
        self.ledger: deque[Ledger] = deque(maxlen=self.memory.ledger)
        self.phases: deque[PhaseView] = deque(maxlen=self.memory.phases)
        self.faults: deque[FaultView] = deque(maxlen=self.memory.faults)
        self.notices: deque[NoticeView] = deque(maxlen=self.memory.notices)
        self.seconds: OrderedDict[int, list[int]] = OrderedDict()
        self.ttfts_ms: deque[float] = deque(maxlen=self.memory.samples)
        self.e2es_ms: deque[float] = deque(maxlen=self.memory.samples)
        self._on_settled = on_settled
        self.series = Series()
        self.lately = Lately()
        self._boot: str | None = None
        self._names = ReplicaNames()
        self._handlers = self._table()

    def apply(self, envelope: Envelope) -> bool:
        """Fold one envelope in; False where it was a repeated one."""
        if not self.gaps.add(envelope.source, envelope.incarnation, envelope.seq):
            return False
        self.counts["events"] += 1
        at_ns = self._at(envelope)
        handler = self._handlers.get(type(envelope.event))
        if handler is not None:
            handler(at_ns, envelope, envelope.event)
        said = notice(envelope.event)
        if said is not None:
            kind = str(envelope.event.__struct_config__.tag)
            about = subject(envelope.event)
            self.notices.append(NoticeView(at_ns, said[0], envelope.source, said[1], kind, about))
        return True

    def apply_all(self, envelopes: Iterable[Envelope]) -> None:
        """Fold many envelopes in."""
        for envelope in envelopes:
            self.apply(envelope)

    def snapshot(self) -> Snapshot:
        """Everything as it is now, frozen."""
        return take_snapshot(self)

    def trace(self, request_id: str) -> Trace:
        """The trace of a request in flight or among the recent ones.

        Raises:
            AnyServeError: the request is not, or no longer, remembered here.
        """
        from anyserve.telemetry.trace import build_trace  # noqa: PLC0415 - the first picture needs none

        request = self.requests.get(request_id) or self.settled.get(request_id)
        if request is None:
            raise AnyServeError(
                f"request '{request_id}' is not remembered here",
                code="unknown_request",
                hint="the log of the run has it: anyserve trace REQUEST",
            )
        return build_trace(request.events, request_id)

    def find(self, request_id: str) -> RequestState | None:
        """What is known of a request; None where it is not, or no longer, remembered."""
        return (
            self.requests.get(request_id)
            or self.settled.get(request_id)
            or self.unoffered.get(request_id)
        )

    def events_of(self, request_id: str) -> tuple[Envelope, ...]:
        """What was said of a request in flight or among the recent ones; empty where unknown."""
        request = self.requests.get(request_id) or self.settled.get(request_id)
        return () if request is None else tuple(request.events)

    def _table(self) -> dict[type, Callable[[int, Envelope, Any], None]]:
        return {
            RequestOffered: self._offered,
            RequestSubmitted: self._remembered,
            RequestRejected: self._remembered,
            RequestFirstToken: self._remembered,
            RequestQueued: self._queued,
            RequestRouted: self._routed,
            RequestDelegated: self._delegated,
            RequestReentered: self._reentered,
            AttemptAdmitted: self._admitted,
            AttemptStarted: self._started,
            AttemptFirstToken: self._first_token,
            AttemptHandedBack: self._handed_back,
            AttemptEnded: self._ended,
            RequestOutcome: self._outcome,
            ReplicaChanged: self._replica_changed,
            ReplicaLoad: self._replica_load,
            WorkerChanged: self._worker_changed,
            SchedulerLoad: self._scheduler_load,
            SchedulerStarted: self._scheduler_started,
            PolicyFailed: self._policy_failed,
            BusTrouble: self._bus_trouble,
            RunStarted: self._run_started,
            RunEnded: self._run_ended,
            PhaseStarted: self._phase,
            FaultInjected: self._fault,
            TrafficRate: self._traffic_rate,
            StreamThinned: self._thinned,
        }

    def _at(self, envelope: Envelope) -> int:
        """The envelope's time on the run's clock; from another boot: now."""
        if self._boot is None or isinstance(envelope.event, RunStarted):
            if self._boot != envelope.boot:
                self.now_ns = envelope.t
            self._boot = envelope.boot
        if envelope.boot != self._boot:
            return self.now_ns
        self.now_ns = max(self.now_ns, envelope.t)
        return envelope.t

    # --- requests ------------------------------------------------------------------------------

    def _request(self, request_id: str, envelope: Envelope) -> RequestState:
        request = self.find(request_id)
        if request is None:
            request = self.unoffered[request_id] = RequestState(request_id)
            if len(self.unoffered) > self.memory.unoffered:
                self.unoffered.popitem(last=False)
        request.seen = None
        if len(request.events) < self.memory.events_per_request:
            request.events.append(envelope)
        return request

    def _remembered(self, _at_ns: int, envelope: Envelope, event: Any) -> None:
        """It changes no view, but the request's trace needs it."""
        self._request(event.id, envelope)

    def capability(self, name: str | None) -> Counter[str]:
        """Clients choose names: beyond the bound new ones are counted together."""
        name = name or "?"
        if name not in self.by_capability and len(self.by_capability) >= self.memory.capabilities:
            name = OTHER_CAPABILITIES
        return self.by_capability.setdefault(name, Counter())

    def second(self, at_ns: int) -> list[int]:
        """What was offered, completed, and put out as tokens in this second of the clock."""
        second = at_ns // _NS_PER_S
        counts = self.seconds.get(second)
        if counts is None:
            counts = self.seconds[second] = [0, 0, 0]
            if len(self.seconds) > self.memory.seconds:
                del self.seconds[min(self.seconds)]
        return counts

    def _offered(self, at_ns: int, envelope: Envelope, event: RequestOffered) -> None:
        request = self._request(event.id, envelope)
        if request.offered_ns is not None:
            return
        request.asked, request.entry = event.capability, event.entry
        request.prompt_tokens, request.max_tokens = event.prompt_tokens, event.max_tokens
        request.intended_ns, request.offered_ns = event.intended_ns, at_ns
        self.counts["offered"] += 1
        self.counts["calls"] += bool(event.parent)
        self.counts["prompt_tokens"] += event.prompt_tokens
        self.capability(event.capability)["offered"] += 1
        self.lately.offer(at_ns, event.capability or "?")
        self.second(at_ns)[0] += 1
        self.series.offer(at_ns)
        if request.stage is Stage.OFFERED:
            request.stage_ns = at_ns
        for start in request.started.values():
            self._count_start(request, start)
        self.unoffered.pop(event.id, None)
        if request.outcome is not None:
            self._settle(at_ns, request, request.outcome)
            return
        self.requests[event.id] = request
        if len(self.requests) > self.memory.in_flight:
            self.requests.popitem(last=False)
            self.counts["forgotten"] += 1

    def _queued(self, at_ns: int, envelope: Envelope, event: RequestQueued) -> None:
        request = self._request(event.id, envelope)
        request.join(at_ns, event.depth)
        if request.stage is Stage.OFFERED or (
            request.stage is not Stage.SETTLED and request.attempt <= request.over
        ):
            request.enter(Stage.QUEUED, at_ns)
            request.capability = event.capability

    def _routed(self, at_ns: int, envelope: Envelope, event: RequestRouted) -> None:
        request = self._request(event.id, envelope)
        request.routed[event.attempt] = (event.replica, event.capability)
        request.routed_ns[event.attempt] = at_ns
        request.move(at_ns, Stage.BOUND, event.attempt, event.replica, event.capability)
        for entry in request.ledger:
            _complete(entry, request)

    def _delegated(self, at_ns: int, envelope: Envelope, event: RequestDelegated) -> None:
        request = self._request(event.id, envelope)
        if event.attempt in request.delegated:
            return
        self.counts["delegated_requests"] += not request.delegated
        request.delegated[event.attempt] = event
        self.counts["delegations"] += 1
        self.delegations[event.from_capability, event.to_capability, event.reason] += 1
        self.capability(event.from_capability)["delegated"] += 1
        self.replica(event.replica).counts["delegated_out"] += 1
        request.give_back(at_ns, event.attempt, event.replica)
        for attempt, start in list(request.started.items()):
            if attempt > event.attempt and not start.delegated:
                request.started[attempt] = start._replace(delegated=True)
                self._count_delegated_in(request, start)
        self._enter_ledger(
            request,
            Ledger(
                at_ns=at_ns,
                request=event.id,
                attempt=event.attempt,
                kind="delegate",
                reason=event.reason,
                detail=event.detail,
                from_capability=event.from_capability,
                to_capability=event.to_capability,
                from_replica=event.replica,
            ),
        )

    def _reentered(self, at_ns: int, envelope: Envelope, event: RequestReentered) -> None:
        request = self._request(event.id, envelope)
        replica = event.replica or request.routed.get(event.attempt, (request.replica or "?",))[0]
        request.give_back(at_ns, event.attempt, replica)
        self.counts[REENTRY_COUNTS.get(event.kind, event.kind)] += 1
        if event.kind == "lost":
            request.recoveries += 1
            if replica in self.replicas:
                self.replica(replica).counts["lost"] += 1
        self._enter_ledger(
            request,
            Ledger(
                at_ns=at_ns,
                request=event.id,
                attempt=event.attempt,
                kind=event.kind,
                reason=event.kind,
                detail=event.detail,
                from_capability=request.capability or request.asked,
                to_capability=None,
                from_replica=replica,
            ),
        )

    def _enter_ledger(self, request: RequestState, entry: Ledger) -> None:
        request.ledger.append(entry)
        self.ledger.append(entry)
        _complete(entry, request)

    def _admitted(self, at_ns: int, envelope: Envelope, event: AttemptAdmitted) -> None:
        request = self._request(event.id, envelope)
        replica = self._names.of(envelope.source)
        request.move(at_ns, Stage.BOUND, event.attempt, replica, event.capability)
        if event.position:
            request.join(at_ns, event.position)

    def _started(self, at_ns: int, envelope: Envelope, event: AttemptStarted) -> None:
        request = self._request(event.id, envelope)
        replica = request.routed.get(event.attempt, (self._names.of(envelope.source),))[0]
        request.move(at_ns, Stage.RUNNING, event.attempt, replica, event.capability)
        if event.attempt in request.started:
            return
        delegated = any(attempt < event.attempt for attempt in request.delegated)
        start = request.started[event.attempt] = Start(at_ns, replica, delegated)
        self.replica(replica).counts["started"] += 1
        if request.asked is not None:
            self._count_start(request, start)

    def _count_start(self, request: RequestState, start: Start) -> None:
        self._cell(request, start.replica)[0] += 1
        self.lately.start(start.at_ns, request.asked or "?", start.replica)
        if start.delegated:
            self._count_delegated_in(request, start)

    def _count_delegated_in(self, request: RequestState, start: Start) -> None:
        if request.asked is not None:
            self._cell(request, start.replica)[1] += 1
            self.lately.delegate(start.at_ns, request.asked, start.replica)
            self.replica(start.replica).counts["delegated_in"] += 1

    def _cell(self, request: RequestState, replica: str) -> list[int]:
        return self.routing.setdefault((request.asked or "?", replica), [0, 0])

    def _first_token(self, at_ns: int, envelope: Envelope, event: AttemptFirstToken) -> None:
        request = self._request(event.id, envelope)
        replica = request.routed.get(event.attempt, (self._names.of(envelope.source),))[0]
        request.move(at_ns, Stage.STREAMING, event.attempt, replica, None)

    def _handed_back(self, at_ns: int, envelope: Envelope, event: AttemptHandedBack) -> None:
        request = self._request(event.id, envelope)
        request.back_ns[event.attempt] = at_ns
        request.give_back(at_ns, event.attempt, self._names.of(envelope.source))
        for entry in request.ledger:
            _complete(entry, request)

    def _ended(self, _at_ns: int, envelope: Envelope, event: AttemptEnded) -> None:
        request = self._request(event.id, envelope)
        replica = request.routed.get(event.attempt, (self._names.of(envelope.source),))[0]
        status = "completed" if event.status == "completed" else "failed"
        if event.status != "cancelled":
            self.replica(replica).counts[status] += 1
        if event.status == "completed":
            self.replica(replica).times.append(event.times)

    def _outcome(self, at_ns: int, envelope: Envelope, event: RequestOutcome) -> None:
        request = self._request(event.id, envelope)
        if request.outcome is not None:
            return
        request.outcome = event
        request.enter(Stage.SETTLED, at_ns)
        if request.offered_ns is not None:
            self._settle(at_ns, request, event)

    def _settle(self, at_ns: int, request: RequestState, outcome: RequestOutcome) -> None:
        self.requests.pop(request.id, None)
        self.settled[request.id] = request
        if len(self.settled) > self.memory.recent:
            self.settled.popitem(last=False)
        self.counts[outcome.outcome] += 1
        self.counts["output_tokens"] += outcome.n_tokens
        self.capability(request.asked)[outcome.outcome] += 1
        if outcome.outcome in {"failed", "rejected"}:
            self.lately.fail(at_ns, request.asked or "?")
        if outcome.code is not None:
            self.by_code[outcome.code] += 1
        second = self.second(at_ns)
        second[1] += outcome.outcome == "completed"
        if outcome.outcome == "completed":
            self.series.complete(at_ns)
        second[2] += outcome.n_tokens
        for entry in request.ledger:
            _complete(entry, request)
        if outcome.outcome == "completed":
            self._sample(at_ns, request)
        if self._on_settled is not None:
            self._on_settled(request)

    def _sample(self, at_ns: int, request: RequestState) -> None:
        assert request.outcome is not None
        if request.e2e_ms is not None:
            self.e2es_ms.append(request.e2e_ms)
        if request.ttft_ms is not None:
            self.ttfts_ms.append(request.ttft_ms)
            if request.outcome.served_by is not None:
                replica = self.replica(request.outcome.served_by)
                replica.ttfts_ms.append(request.ttft_ms)
                replica.trend.ttft(at_ns, request.ttft_ms)

    # --- the cluster ---------------------------------------------------------------------------

    def replica(self, name: str) -> ReplicaCondition:
        """The replica of this name, known from now on."""
        replica = self.replicas.get(name)
        if replica is None:
            replica = self.replicas[name] = ReplicaCondition(name)
        replica.seen = None
        return replica

    def _replica_changed(self, at_ns: int, envelope: Envelope, event: ReplicaChanged) -> None:
        self._names.learn(envelope.source, envelope.event)
        self.learn_replica(at_ns, event)

    def learn_replica(self, at_ns: int, event: ReplicaChanged) -> None:
        """What a replica is. Public, because its registration says the same to who comes late."""
        replica = self.replica(event.replica)
        if event.incarnation < replica.incarnation:
            return
        replica.state, replica.incarnation = event.state, event.incarnation
        replica.offers = event.offers or replica.offers
        replica.concurrency = event.concurrency or replica.concurrency
        replica.entry_queue = event.entry_queue or replica.entry_queue
        replica.engine = event.engine or replica.engine
        replica.detail, replica.progress = event.detail, event.progress
        replica.changed_ns = at_ns
        if event.state in {"lost", "stopped"}:
            replica.load = None

    def _replica_load(self, at_ns: int, envelope: Envelope, event: ReplicaLoad) -> None:
        self._names.learn(envelope.source, envelope.event)
        self.replica(event.replica).report(at_ns, event.load)

    def _worker_changed(self, _at_ns: int, envelope: Envelope, event: WorkerChanged) -> None:
        self._names.learn(envelope.source, envelope.event)
        replica = self.replica(event.replica)
        replica.worker, replica.worker_detail = event.state, event.detail
        replica.worker_pid = event.pid or replica.worker_pid

    def _scheduler_load(self, _at_ns: int, _envelope: Envelope, event: SchedulerLoad) -> None:
        self.queues = dict(event.queues)

    def _scheduler_started(self, _at_ns: int, _envelope: Envelope, event: SchedulerStarted) -> None:
        if self.epoch is None or event.epoch >= self.epoch:
            self.epoch, self.policy = event.epoch, event.policy

    def _policy_failed(self, _at_ns: int, _envelope: Envelope, _event: PolicyFailed) -> None:
        self.counts["policy_failures"] += 1

    def _bus_trouble(self, _at_ns: int, _envelope: Envelope, event: BusTrouble) -> None:
        self.counts["malformed" if event.kind == "malformed" else "bus_troubles"] += event.count

    def _thinned(self, at_ns: int, _envelope: Envelope, event: StreamThinned) -> None:
        fold_thinned(self, at_ns, event)

    # --- the run -------------------------------------------------------------------------------

    def _run_started(self, at_ns: int, _envelope: Envelope, event: RunStarted) -> None:
        self.series.begin(at_ns)
        self.run = RunView(
            run=event.run,
            scenario=event.scenario,
            seed=event.seed,
            planned_requests=event.planned_requests,
            planned_s=event.planned_s,
            started_ns=at_ns,
            ended=self.run.ended if self.run is not None and self.run.run == event.run else None,
        )

    def _run_ended(self, _at_ns: int, _envelope: Envelope, event: RunEnded) -> None:
        if self.run is not None:
            self.run = replace(self.run, ended=event.reason)

    def _traffic_rate(self, _at_ns: int, _envelope: Envelope, event: TrafficRate) -> None:
        if self.run is not None:
            self.run = replace(self.run, rate=event.factor)

    def _phase(self, at_ns: int, _envelope: Envelope, event: PhaseStarted) -> None:
        self.phases.append(PhaseView(event.name, at_ns, event.planned_s))

    def _fault(self, at_ns: int, _envelope: Envelope, event: FaultInjected) -> None:
        self.faults.append(FaultView(at_ns, event.action, event.target, event.line, event.detail))


def _complete(entry: Ledger, request: RequestState) -> None:
    """Fill in what is known by now of where a request went after it came back."""
    entry.seen = None
    later = [attempt for attempt in request.routed if attempt > entry.attempt]
    if later:
        entry.to_replica, entry.to_capability = request.routed[min(later)]
        back_ns = request.back_ns.get(entry.attempt, entry.at_ns)
        entry.hop_ms = max(0, request.routed_ns[min(later)] - back_ns) / NS_PER_MS
    if request.outcome is not None:
        entry.outcome, entry.e2e_ms = request.outcome.outcome, request.e2e_ms
