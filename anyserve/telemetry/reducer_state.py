"""What the reducer remembers: mutable, owned by one reducer, shown to others as views only."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from anyserve.core.events import Envelope, RequestDelegated, RequestOutcome
from anyserve.core.messages import Load, Times
from anyserve.telemetry.stats import NS_PER_MS, percentile
from anyserve.telemetry.trend import Trend
from anyserve.telemetry.views import (
    EngineTimes,
    LedgerEntry,
    LoadPoint,
    ReplicaView,
    RequestView,
    Stage,
)

_RANK = {stage: rank for rank, stage in enumerate(Stage)}
HISTORY_NS = 60_000_000_000
REPLICA_SAMPLES = 256
OTHER_CAPABILITIES = "(other)"
"""Stands for all capabilities beyond `Memory.capabilities`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How much a reducer remembers; everything it holds is bounded by these."""

    in_flight: int = 100_000
    shown_in_flight: int = 500
    recent: int = 256
    unoffered: int = 4096
    events_per_request: int = 96
    ledger: int = 256
    notices: int = 500
    faults: int = 200
    phases: int = 200
    seconds: int = 120
    samples: int = 2048
    capabilities: int = 1024


class Start(NamedTuple):
    """An attempt began; `delegated`: it is counted as come by delegation."""

    at_ns: int
    replica: str
    delegated: bool


@dataclass(slots=True)
class Ledger:
    """A way back to the scheduler whose end may not be known yet."""

    at_ns: int
    request: str
    attempt: int
    kind: str
    reason: str
    detail: str
    from_capability: str | None
    to_capability: str | None
    from_replica: str
    to_replica: str | None = None
    outcome: str | None = None
    e2e_ms: float | None = None
    hop_ms: float | None = None
    seen: LedgerEntry | None = None
    """The view as it was made last; None once anything more is known."""

    def view(self) -> LedgerEntry:
        """As others see it; the same object until more is known."""
        if self.seen is None:
            self.seen = self._view()
        return self.seen

    def _view(self) -> LedgerEntry:
        return LedgerEntry(
            at_ns=self.at_ns,
            request=self.request,
            kind=self.kind,
            reason=self.reason,
            detail=self.detail,
            from_capability=self.from_capability,
            to_capability=self.to_capability,
            from_replica=self.from_replica,
            to_replica=self.to_replica,
            outcome=self.outcome,
            e2e_ms=self.e2e_ms,
            hop_ms=self.hop_ms,
        )


@dataclass(slots=True)
class RequestState:
    """One request. Attempts are ordered by number, so late events of an earlier one change
    nothing but counts."""

    id: str
    stage: Stage = Stage.OFFERED
    asked: str | None = None
    capability: str | None = None
    entry: str | None = None
    replica: str | None = None
    attempt: int = 0
    over: int = 0
    """The highest attempt that was handed back or lost."""
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    intended_ns: int = 0
    offered_ns: int | None = None
    recoveries: int = 0
    outcome: RequestOutcome | None = None
    delegated: dict[int, RequestDelegated] = field(default_factory=dict)
    routed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Attempt -> (replica, capability)."""
    routed_ns: dict[int, int] = field(default_factory=dict)
    back_ns: dict[int, int] = field(default_factory=dict)
    """Attempt -> when it was handed back."""
    started: dict[int, Start] = field(default_factory=dict)
    ledger: list[Ledger] = field(default_factory=list)
    events: list[Envelope] = field(default_factory=list)
    stage_ns: int | None = None
    joined: tuple[int, int] | None = None
    """When it joined the queue it joined last, and its place there."""
    seen: RequestView | None = None
    """The view as it was made last; None once anything was heard since."""

    def enter(self, stage: Stage, at_ns: int) -> None:
        """It is in this stage from now on."""
        if stage is not self.stage or self.stage_ns is None:
            self.stage, self.stage_ns = stage, at_ns

    def join(self, at_ns: int, position: int) -> None:
        """It joined a queue; of two, the later one counts, whichever is heard of first."""
        self.joined = max(self.joined or (at_ns, position), (at_ns, position))

    def move(
        self, at_ns: int, stage: Stage, attempt: int, replica: str, capability: str | None
    ) -> None:
        """An attempt has reached this stage."""
        if attempt <= self.over or attempt < self.attempt:
            return
        further = attempt > self.attempt or _RANK[stage] > _RANK[self.stage]
        if further and self.stage is not Stage.SETTLED:
            self.enter(stage, at_ns)
        self.attempt, self.replica = attempt, replica
        self.capability = capability or self.capability

    def give_back(self, at_ns: int, attempt: int, replica: str) -> None:
        """An attempt is over without an answer: the request waits for another."""
        self.over = max(self.over, attempt)
        if attempt < self.attempt:
            return
        self.attempt, self.replica = attempt, replica
        if self.stage is not Stage.SETTLED:
            self.enter(Stage.QUEUED, at_ns)

    @property
    def e2e_ms(self) -> float | None:
        """From the intended time to the outcome."""
        if self.outcome is None or self.offered_ns is None:
            return None
        return (self.outcome.end_ns - self.intended_ns) / NS_PER_MS

    @property
    def ttft_ms(self) -> float | None:
        """From the intended time to the client's first token."""
        if self.outcome is None or self.outcome.first_ns is None or self.offered_ns is None:
            return None
        return (self.outcome.first_ns - self.intended_ns) / NS_PER_MS

    def view(self) -> RequestView:
        """As others see it; the same object until something more is heard of the request."""
        if self.seen is None:
            self.seen = self._view()
        return self.seen

    def _view(self) -> RequestView:
        outcome = self.outcome
        return RequestView(
            id=self.id,
            stage=self.stage,
            asked=self.asked,
            capability=self.capability or self.asked,
            entry=self.entry,
            replica=self.replica or (None if outcome is None else outcome.served_by),
            attempt=self.attempt or None,
            prompt_tokens=self.prompt_tokens,
            max_tokens=self.max_tokens,
            n_tokens=0 if outcome is None else outcome.n_tokens,
            offered_ns=self.offered_ns,
            delegations=len(self.delegated),
            recoveries=self.recoveries,
            outcome=None if outcome is None else outcome.outcome,
            code=None if outcome is None else outcome.code,
            ttft_ms=self.ttft_ms,
            e2e_ms=self.e2e_ms,
            stage_ns=self.stage_ns,
            position=None if self.joined is None else self.joined[1],
        )


@dataclass(slots=True)
class ReplicaCondition:
    """One replica and its worker."""

    id: str
    state: str = "unknown"
    incarnation: int = 0
    offers: Mapping[str, int | None] = field(default_factory=dict)
    concurrency: int = 0
    entry_queue: int = 0
    engine: str = ""
    detail: str = ""
    progress: float | None = None
    changed_ns: int = 0
    worker: str | None = None
    worker_pid: int = 0
    worker_detail: str = ""
    load: Load | None = None
    history: deque[LoadPoint] = field(default_factory=deque)
    trend: Trend = field(default_factory=Trend)
    ttfts_ms: deque[float] = field(default_factory=lambda: deque(maxlen=REPLICA_SAMPLES))
    times: deque[Times] = field(default_factory=lambda: deque(maxlen=REPLICA_SAMPLES))
    counts: Counter[str] = field(default_factory=Counter)
    seen: ReplicaView | None = None
    """The view as it was made last; None once anything was heard since."""

    def report(self, at_ns: int, load: Load) -> None:
        """Take a load report into the last 60 s and the trend."""
        self.load = load
        self.trend.load(at_ns, load)
        self.history.append(
            LoadPoint(at_ns, load.waiting, load.running, load.kv_usage, load.tokens_per_s)
        )
        while self.history[0].at_ns < at_ns - HISTORY_NS:
            self.history.popleft()

    def view(self, held: int) -> ReplicaView:
        """As others see it; the same object until something more is heard of the replica."""
        if self.seen is None or self.seen.held != held:
            self.seen = self._view(held)
        return self.seen

    def _view(self, held: int) -> ReplicaView:
        load, counts = self.load, self.counts
        return ReplicaView(
            id=self.id,
            state=self.state,
            incarnation=self.incarnation,
            offers=dict(self.offers),
            concurrency=self.concurrency,
            entry_queue=self.entry_queue,
            engine=self.engine,
            detail=self.detail,
            progress=self.progress,
            changed_ns=self.changed_ns,
            worker=self.worker,
            worker_pid=self.worker_pid,
            worker_detail=self.worker_detail,
            running=None if load is None else load.running,
            waiting=None if load is None else load.waiting,
            kv_usage=None if load is None else load.kv_usage,
            tokens_per_s=None if load is None else load.tokens_per_s,
            service_ms=None if load is None else load.service_ms,
            ttft_p95_ms=quantile(self.ttfts_ms, 0.95),
            held=held,
            started=counts["started"],
            completed=counts["completed"],
            failed=counts["failed"],
            delegated_in=counts["delegated_in"],
            delegated_out=counts["delegated_out"],
            lost=counts["lost"],
            history=tuple(self.history),
            trend=self.trend.view(),
            times=_engine_times(self.times),
        )


def _engine_times(times: deque[Times]) -> EngineTimes | None:
    if not times:
        return None
    scale = len(times) * NS_PER_MS
    return EngineTimes(
        attempts=len(times),
        queue_ms=sum(one.queue_ns for one in times) / scale,
        engine_wait_ms=sum(one.engine_wait_ns for one in times) / scale,
        prefill_ms=sum(one.prefill_ns for one in times) / scale,
        decode_ms=sum(one.decode_ns for one in times) / scale,
    )


def quantile(samples: deque[float], q: float) -> float | None:
    """A quantile of the samples at hand; None where there are none."""
    return percentile(sorted(samples), q) if samples else None
