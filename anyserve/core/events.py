"""What happened, as data: emitted identically by the runtime and the simulator.

An event says counts, names and hashes, never prompt or output text. `Envelope` adds who said it,
when on that host's monotonic clock, and a sequence number, so that gaps can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import msgspec

from anyserve.core.messages import Load, Times


class Event(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", gc=False
):
    """Base of all events."""


# --- a request's way ---------------------------------------------------------------------------


class RequestOffered(Event, frozen=True, tag="request.offered"):
    """Origin: a client wants this. `intended_ns` is when the plan wanted it sent (open loop);
    latencies are measured from it. `entry` is `scheduler` or a replica's id."""

    id: str
    capability: str
    prompt_tokens: int
    max_tokens: int
    entry: str
    intended_ns: int
    attributes: Mapping[str, str] = {}
    priority: int = 0
    deadline_ns: int | None = None
    stream: str = ""
    phase: str = ""
    parent: str = ""
    """The request whose handler asked for this one."""


class RequestSubmitted(Event, frozen=True, tag="request.submitted"):
    """Origin: sent to `entry`; `submission` above 1 is a recovery that resumes `resumed` tokens."""

    id: str
    submission: int
    entry: str
    resumed: int = 0
    resent: bool = False


class RequestQueued(Event, frozen=True, tag="request.queued"):
    """Scheduler: waits for credit. `received_ns`: when it arrived here. `depth`: in this queue."""

    id: str
    capability: str
    depth: int
    received_ns: int
    submission: int = 1


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One replica that could have taken the request, and its score (lower is better) where the
    policy worked one out."""

    replica: str
    score: float | None = None
    credit: int = 0
    running: int = 0
    waiting: int = 0


class RequestRouted(Event, frozen=True, tag="request.routed"):
    """Scheduler: bound to a replica, and why. `excluded` counts replicas per reason. `eligible`
    counts those that could take it; above 64 with credit it is an upper bound."""

    id: str
    attempt: int
    replica: str
    capability: str
    policy: str
    reason: str
    received_ns: int
    submission: int = 1
    eligible: int = 0
    candidates: list[Candidate] = []
    excluded: Mapping[str, int] = {}
    delegations: int = 0


class RequestDelegated(Event, frozen=True, tag="request.delegated"):
    """Scheduler: took a delegation into account. `count` is this request's delegations so far."""

    id: str
    attempt: int
    replica: str
    reason: str
    from_capability: str
    to_capability: str
    count: int
    detail: str = ""


class RequestReentered(Event, frozen=True, tag="request.reentered"):
    """Scheduler: came back by another of the four ways. `kind`: refuse, return, lost."""

    id: str
    attempt: int
    replica: str
    kind: str
    count: int
    detail: str = ""


class RequestRejected(Event, frozen=True, tag="request.rejected"):
    """Scheduler or entry replica: will not serve it. The origin's outcome is what counts."""

    id: str
    code: str
    detail: str = ""
    retry_after_ms: int | None = None
    received_ns: int | None = None


class AttemptAdmitted(Event, frozen=True, tag="attempt.admitted"):
    """Replica: a request that entered here stays here; `position` in its entry queue (0: none)."""

    id: str
    attempt: int
    capability: str
    position: int
    received_ns: int


class AttemptStarted(Event, frozen=True, tag="attempt.started"):
    """Replica: given to the engine. `received_ns`: when the request arrived at this replica."""

    id: str
    attempt: int
    capability: str
    received_ns: int
    entered: bool = False
    resumed: int = 0


class AttemptFirstToken(Event, frozen=True, tag="attempt.first_token"):
    """Replica: the engine gave the first token of this attempt."""

    id: str
    attempt: int


class AttemptHandedBack(Event, frozen=True, tag="attempt.handed_back"):
    """Replica: gave it back unstarted. `kind`: delegate, refuse, return."""

    id: str
    attempt: int
    kind: str
    reason: str
    received_ns: int
    detail: str = ""


class AttemptEnded(Event, frozen=True, tag="attempt.ended"):
    """Replica: over here. `status` is an `AttemptStatus` value, `n_tokens` over all choices made by
    this attempt alone, without the tokens it resumed from."""

    id: str
    attempt: int
    status: str
    n_tokens: int
    times: Times
    code: str | None = None
    message: str = ""
    cached_tokens: int | None = None


class RequestFirstToken(Event, frozen=True, tag="request.first_token"):
    """Origin: the client got its first token."""

    id: str
    attempt: int


class RequestOutcome(Event, frozen=True, tag="request.outcome"):
    """Origin: decided, once. `outcome`: completed, failed, rejected, cancelled, expired.

    `first_ns` and `end_ns` are on the origin's clock. `itl_ns`: gaps between successive deliveries
    of tokens, as a histogram {upper bound of a bucket in ns: tokens}. `attempts` lists the served
    attempt last.
    """

    id: str
    outcome: str
    end_ns: int
    code: str | None = None
    message: str = ""
    retry_after_ms: int | None = None
    first_ns: int | None = None
    n_tokens: int = 0
    itl_ns: Mapping[int, int] = {}
    finish: str | None = None
    served_by: str | None = None
    attempt: int | None = None
    submissions: int = 1


# --- parts of the cluster ----------------------------------------------------------------------


class ReplicaChanged(Event, frozen=True, tag="replica.changed"):
    """Replica, or the scheduler for `lost`: a new state, and what it offers."""

    replica: str
    state: str
    incarnation: int
    offers: Mapping[str, int | None] = {}
    """Capability -> max_tokens."""
    concurrency: int = 0
    entry_queue: int = 0
    engine: str = ""
    detail: str = ""
    progress: float | None = None


class ReplicaLoad(Event, frozen=True, tag="replica.load"):
    """Replica, about once a second."""

    replica: str
    load: Load


class SchedulerLoad(Event, frozen=True, tag="scheduler.load"):
    """Scheduler, about once a second: requests waiting per capability, and bound ones."""

    queues: Mapping[str, int]
    bound: int


class SchedulerStarted(Event, frozen=True, tag="scheduler.started"):
    """Scheduler: a new life. `replayed`: records of its journal; -1: no journal was found."""

    epoch: int
    policy: str
    replayed: int


class WorkerChanged(Event, frozen=True, tag="worker.changed"):
    """Replica: its worker `started`, is `loading`, `ready`, `exited`, `hung` or was `killed`; the
    handlers' code has changed (`reloading`), or cannot be loaded (`reload_failed`)."""

    replica: str
    state: str
    pid: int = 0
    detail: str = ""
    ready_s: float | None = None


class EpochChanged(Event, frozen=True, tag="epoch.changed"):
    """Origin or replica: saw a new scheduler life."""

    epoch: int


class PolicyFailed(Event, frozen=True, tag="policy.failed"):
    """Scheduler: the routing policy raised or named a non-candidate; least-loaded decided."""

    policy: str
    id: str
    error: str


class BusTrouble(Event, frozen=True, tag="bus.trouble"):
    """Any process. `kind`: malformed, foreign, lag, disconnected, reconnected."""

    kind: str
    detail: str
    count: int = 1


class ProcessExited(Event, frozen=True, tag="process.exited"):
    """Supervisor: one of its processes ended; `restart_in_s` None where it is given up."""

    name: str
    exit_code: int
    restart_in_s: float | None = None


class IngressOpened(Event, frozen=True, tag="ingress.opened"):
    """Ingress: its doors are open at these addresses (empty: closed; both: it leaves). `replica`:
    in whose process it runs; empty for one of its own."""

    http: str = ""
    grpc: str = ""
    replica: str = ""


class RequestSums(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What became of a number of requests, as sums: `counts` and `codes` over all of them, and the
    same by the capability asked and by replica. `cells`: (asked, replica, attempts started, of
    them after a delegation). `edges`: (from capability, to capability, reason, delegations)."""

    counts: Mapping[str, int] = {}
    codes: Mapping[str, int] = {}
    capabilities: Mapping[str, Mapping[str, int]] = {}
    replicas: Mapping[str, Mapping[str, int]] = {}
    cells: list[tuple[str, str, int, int]] = []
    edges: list[tuple[str, str, str, int]] = []


class StreamThinned(Event, frozen=True, tag="stream.thinned"):
    """Observer, of its own stream and never on the bus: more is said than it passes on.

    One request in `one_in` is told whole, drawn by its id; the others only as `sums` since the
    last such event, so that totals stay exact. `left_out` counts the events behind them, `open`
    the requests among them that have no outcome yet. All that `heard` numbers was heard or is
    counted in `missing`: holes below those numbers mean nothing. `changed`: `one_in` is new.
    """

    one_in: int
    left_out: int
    open: int
    sums: RequestSums = RequestSums()
    heard: list[tuple[str, int, int]] = []
    """Source, incarnation, and the number that its next event will have."""
    missing: int = 0
    changed: bool = False


# --- a run -------------------------------------------------------------------------------------


class RunStarted(Event, frozen=True, tag="run.started"):
    """Player: the traffic begins. `t` of the envelope is time zero of the run."""

    run: str
    scenario: str
    seed: int
    planned_requests: int
    planned_s: float


class PhaseStarted(Event, frozen=True, tag="phase.started"):
    """Player."""

    name: str
    planned_s: float


class TrafficRate(Event, frozen=True, tag="traffic.rate"):
    """Player: somebody changed the pace of the traffic. From here, where the plan has come to
    `planned_at_s`, it runs `factor` times as fast as planned; 0: it stands still."""

    factor: float
    planned_at_s: float


class FaultInjected(Event, frozen=True, tag="fault.injected"):
    """Player or supervisor: a fault of the scenario (`line`) or an operator's was carried out."""

    action: str
    target: str
    line: int | None = None
    detail: str = ""


class RunEnded(Event, frozen=True, tag="run.ended"):
    """Player: all traffic has its outcome, or the run was stopped."""

    reason: str


AnyEvent = (
    RequestOffered | RequestSubmitted | RequestQueued | RequestRouted | RequestDelegated
    | RequestReentered | RequestRejected | AttemptAdmitted | AttemptStarted | AttemptFirstToken
    | AttemptHandedBack | AttemptEnded | RequestFirstToken | RequestOutcome | ReplicaChanged
    | ReplicaLoad | SchedulerLoad | SchedulerStarted | WorkerChanged | EpochChanged | PolicyFailed
    | BusTrouble | ProcessExited | IngressOpened | RunStarted | PhaseStarted | TrafficRate
    | FaultInjected | RunEnded | StreamThinned
)  # fmt: skip
EVENT_TYPES: frozenset[type] = frozenset(get_args(AnyEvent))


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """One line of the event log. `(source, incarnation, seq)` is unique; `seq` counts from 0.

    `t` is `source`'s monotonic clock in nanoseconds; clocks compare within one `boot` only.
    """

    t: int
    source: str
    incarnation: int
    seq: int
    event: AnyEvent
    boot: str = ""
