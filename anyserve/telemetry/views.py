"""What a screen, `status` and plain printing show: one frozen snapshot of a cluster and its run.

Times named `_ns` are on the clock of the run (the boot of the player, else the first one heard).
None is unknown; 0 is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from anyserve.telemetry.series import SeriesView


class Level(Enum):
    """How much an event matters to someone who watches."""

    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Stage(Enum):
    """Where a request in flight is."""

    OFFERED = "offered"
    QUEUED = "queued"
    BOUND = "bound"
    RUNNING = "running"
    STREAMING = "streaming"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class RequestView:
    """One request. `replica` holds it now or held it last; `e2e_ms` from the intended time."""

    id: str
    stage: Stage
    asked: str | None
    capability: str | None
    entry: str | None
    replica: str | None
    attempt: int | None
    prompt_tokens: int | None
    max_tokens: int | None
    n_tokens: int
    offered_ns: int | None
    delegations: int
    recoveries: int
    outcome: str | None = None
    code: str | None = None
    ttft_ms: float | None = None
    e2e_ms: float | None = None
    stage_ns: int | None = None
    """When it came to this stage."""
    position: int | None = None
    """Its place in the queue where it waits or waited last, as it was when it joined."""


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """A replica's load as it reported it at `at_ns`."""

    at_ns: int
    waiting: int
    running: int
    kv_usage: float | None = None
    tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """The highest values of a step of time that begins at `at_ns`; None: nothing was heard."""

    at_ns: int
    waiting: int | None = None
    running: int | None = None
    kv_usage: float | None = None
    tokens_per_s: float | None = None
    ttft_ms: float | None = None


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Mean times of a replica's latest attempts, in milliseconds, by what they spent them on."""

    attempts: int
    queue_ms: float
    engine_wait_ms: float
    prefill_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica and its worker. `history` holds the last 60 s, `trend` five minutes in steps."""

    id: str
    state: str
    incarnation: int
    offers: Mapping[str, int | None]
    concurrency: int
    entry_queue: int
    engine: str
    detail: str
    progress: float | None
    changed_ns: int
    worker: str | None
    worker_pid: int
    worker_detail: str
    running: int | None
    waiting: int | None
    kv_usage: float | None
    tokens_per_s: float | None
    service_ms: float | None
    ttft_p95_ms: float | None
    held: int
    """Requests in flight that are bound to it or run there, as the events show them."""
    started: int
    completed: int
    failed: int
    delegated_in: int
    delegated_out: int
    lost: int
    history: tuple[LoadPoint, ...]
    trend: tuple[TrendPoint, ...] = ()
    times: EngineTimes | None = None


@dataclass(frozen=True, slots=True)
class QueueView:
    """One capability. `waiting`: as the scheduler reported it last; `queued`: as events show."""

    capability: str
    waiting: int | None
    queued: int
    offered: int
    completed: int
    failed: int
    rejected: int
    delegated: int


@dataclass(frozen=True, slots=True)
class RoutingCell:
    """Attempts started at `replica` for requests that asked `asked`, and how many of them came
    there by delegation."""

    asked: str
    replica: str
    started: int
    delegated: int


@dataclass(frozen=True, slots=True)
class LatelyView:
    """What was asked for and served in the last `length_s` seconds of the run's clock, by
    capability asked. `failed` counts those that were rejected as well."""

    length_s: int = 0
    offered: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    routing: tuple[RoutingCell, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One way back to the scheduler. `kind`: delegate, refuse, return, lost."""

    at_ns: int
    request: str
    kind: str
    reason: str
    detail: str
    from_capability: str | None
    to_capability: str | None
    from_replica: str
    to_replica: str | None
    outcome: str | None
    e2e_ms: float | None
    hop_ms: float | None = None
    """From the hand-back at one replica to the next assignment, waiting for it included."""


@dataclass(frozen=True, slots=True)
class PhaseView:
    """A phase of the traffic and when it began."""

    name: str
    at_ns: int
    planned_s: float


@dataclass(frozen=True, slots=True)
class FaultView:
    """A fault that was carried out; `line` of the scenario."""

    at_ns: int
    action: str
    target: str
    line: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class NoticeView:
    """An event worth a line for people."""

    at_ns: int
    level: Level
    source: str
    text: str
    kind: str = ""
    """The event's type: `replica.changed`, `request.delegated`, ..."""
    subject: str = ""
    """The replica or request that it is about, where `text` begins with it."""


@dataclass(frozen=True, slots=True)
class SecondView:
    """What happened in one second of the run's clock."""

    second: int
    offered: int
    completed: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class RunView:
    """The run that is watched."""

    run: str
    scenario: str
    seed: int
    planned_requests: int
    planned_s: float
    started_ns: int
    ended: str | None
    rate: float = 1.0
    """Times as fast as planned that the traffic is offered now; 0: somebody paused it."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the beginning."""

    events: int = 0
    offered: int = 0
    calls: int = 0
    """Of the offered ones, those that handlers asked for."""
    completed: int = 0
    failed: int = 0
    rejected: int = 0
    cancelled: int = 0
    expired: int = 0
    delegated_requests: int = 0
    delegations: int = 0
    refusals: int = 0
    returns: int = 0
    recoveries: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    policy_failures: int = 0
    malformed: int = 0
    bus_troubles: int = 0
    forgotten: int = 0
    """Requests that left the bounded memory of this view before their outcome was seen."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment. `requests` are in flight, `recent` settled, newest last."""

    now_ns: int
    run: RunView | None
    epoch: int | None
    policy: str | None
    events_missing: int
    in_flight: int
    counters: Counters
    by_code: Mapping[str, int]
    requests: tuple[RequestView, ...]
    recent: tuple[RequestView, ...]
    replicas: tuple[ReplicaView, ...]
    queues: tuple[QueueView, ...]
    routing: tuple[RoutingCell, ...]
    ledger: tuple[LedgerEntry, ...]
    phases: tuple[PhaseView, ...]
    faults: tuple[FaultView, ...]
    notices: tuple[NoticeView, ...]
    seconds: tuple[SecondView, ...]
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    e2e_p50_ms: float | None
    e2e_p95_ms: float | None
    series: SeriesView = field(default_factory=SeriesView)
    """Offered and completed over the whole run."""
    lately: LatelyView = field(default_factory=LatelyView)
    """`routing` and what belongs to it, of the last seconds alone."""
    one_in: int = 1
    """Above 1 the stream is thinned: totals are exact, but requests, traces, latencies and what is
    counted from them stand for one request in so many."""
