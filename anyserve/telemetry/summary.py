"""What a run came to, as the data of `summary.json`.

Unknown is null and zero is 0. Latencies are those of completed requests, measured from the time
the plan wanted the request sent; what became of the others is counted under `requests`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from anyserve.core.events import Envelope
from anyserve.telemetry.stats import Distribution, distribution, histogram_distribution
from anyserve.telemetry.tally import ReplicaTally, RequestTally, Tally

SUMMARY_SCHEMA = "anyserve.summary/1"
NS_PER_MS = 1e6
OUTCOMES = ("completed", "failed", "rejected", "cancelled", "expired")
ANY_CAPABILITY = "*"


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """What a request must stay within to count as good; None asks nothing."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the log does not say. `kind`: live, sim, replay or test. `machine`: free facts."""

    run: str | None = None
    scenario: str | None = None
    seed: int | None = None
    kind: str | None = None
    machine: Mapping[str, Any] = {}
    problems: tuple[str, ...] = ()
    """Why the log is not whole, beyond the events that `summarise` misses itself."""


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """How many were offered and what became of them; `by_reason` counts codes of the not served."""

    offered: int
    completed: int
    failed: int
    rejected: int
    cancelled: int
    expired: int
    unresolved: int
    by_reason: dict[str, int]


class Delegations(msgspec.Struct, frozen=True, kw_only=True):
    """`by_edge`: "capability at the hand-back->capability it was routed to next"."""

    total: int
    requests: int
    max_per_request: int
    by_edge: dict[str, int]
    by_reason: dict[str, int]


class Total(msgspec.Struct, frozen=True):
    """A count of its own."""

    total: int


class Tokens(msgspec.Struct, frozen=True):
    """`prompt` of all offered requests, `output` as clients received it."""

    prompt: int
    output: int


class Throughput(msgspec.Struct, frozen=True):
    """Per second of the run; null where it had no length."""

    offered_per_s: float | None
    completed_per_s: float | None
    output_tokens_per_s: float | None


class Goodput(msgspec.Struct, frozen=True):
    """Completed within the SLO: share of all offered (0..1), and per second. Null without SLO."""

    share: float | None
    per_s: float | None


class Hops(msgspec.Struct, frozen=True):
    """1 + delegations of each request that was routed or admitted; recoveries are not hops."""

    mean: float | None
    max: int | None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Times of completed requests."""

    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    e2e: Distribution
    queue: Distribution


class _LatencyFields(TypedDict):
    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    e2e: Distribution
    queue: Distribution


class CapabilitySection(Latencies, frozen=True, kw_only=True):
    """Requests that asked for this capability, wherever they were served."""

    requests: Requests
    delegated: int
    tokens: Tokens
    goodput: Goodput


class ReplicaSection(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica did. `busy_share`: mean of running over concurrency, from its load."""

    state: str | None
    offers: list[str]
    concurrency: int | None
    started: int
    completed: int
    failed: int
    delegated: int
    refused: int
    returned: int
    lost: int
    output_tokens: int
    worker_exits: int
    running_mean: float | None
    running_max: int | None
    waiting_max: int | None
    busy_share: float | None
    ttft: Distribution
    e2e: Distribution


class Summary(Latencies, frozen=True, kw_only=True):
    """The whole of `summary.json`; `schema` names the version of its shape."""

    run: str | None
    scenario: str | None
    seed: int | None
    kind: str | None
    complete: bool
    events_missing: int
    incomplete_because: list[str]
    ended: str | None
    duration_s: float | None
    planned_requests: int | None
    requests: Requests
    delegations: Delegations
    recoveries: Total
    returns: Total
    refusals: Total
    tokens: Tokens
    throughput: Throughput
    goodput: Goodput
    hops: Hops
    capabilities: dict[str, CapabilitySection]
    replicas: dict[str, ReplicaSection]
    faults: int
    policy_failures: int
    bus_troubles: dict[str, int]
    slo: dict[str, Slo]
    machine: Mapping[str, Any]
    schema: str = SUMMARY_SCHEMA


def summarise(
    envelopes: Iterable[Envelope],
    *,
    slo: Slo | Mapping[str, Slo] | None = None,
    facts: RunFacts | None = None,
) -> Summary:
    """Fold a run's events into its summary, in one pass.

    `slo` by capability asked, `*` for all others. Facts that are None are read from `run.started`.
    """
    facts = RunFacts() if facts is None else facts
    tally = Tally()
    for envelope in envelopes:
        tally.add(envelope)
    slos = {ANY_CAPABILITY: slo} if isinstance(slo, Slo) else dict(slo or {})
    return summary_of(tally, slos, facts)


def to_dict(summary: Summary) -> dict[str, Any]:
    """The summary as plain data, as `summary.json` and expectations see it."""
    plain: dict[str, Any] = msgspec.to_builtins(summary)
    return {"schema": plain.pop("schema")} | {
        name: plain[name] for name in [*_inherited_last(Summary), "slo", "machine"]
    }


def write_summary(summary: Summary, path: Path) -> None:
    """Write `summary.json`, indented; the file is either the old one or the whole new one."""
    text = msgspec.json.format(msgspec.json.encode(to_dict(summary)), indent=2)
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(text + b"\n")
    beside.replace(path)


def _inherited_last(kind: type[Summary]) -> list[str]:
    """Field names as a reader wants them: what happened first, how long it took after that."""
    inherited = Latencies.__struct_fields__
    last = {*inherited, "capabilities", "replicas", "slo", "machine", "schema"}
    own = [name for name in kind.__struct_fields__ if name not in last]
    return [*own, *inherited, "capabilities", "replicas"]


def summary_of(tally: Tally, slos: Mapping[str, Slo], facts: RunFacts) -> Summary:
    """The summary of what was counted so far."""
    offered = tally.offered
    duration_s = tally.duration_s
    started = tally.started
    problems = _problems(tally, facts)
    delegated = [one for one in offered if one.delegations]
    return Summary(
        run=facts.run or (started.run if started else None),
        scenario=facts.scenario or (started.scenario if started else None),
        seed=facts.seed if facts.seed is not None else (started.seed if started else None),
        kind=facts.kind,
        complete=not problems,
        events_missing=tally.gaps.missing,
        incomplete_because=problems,
        ended=tally.ended,
        duration_s=duration_s,
        planned_requests=started.planned_requests if started else None,
        requests=_requests(offered),
        delegations=Delegations(
            total=sum(one.delegations for one in delegated),
            requests=len(delegated),
            max_per_request=max((one.delegations for one in delegated), default=0),
            by_edge=tally.edges(),
            by_reason=dict(sorted(tally.delegation_reasons.items())),
        ),
        recoveries=Total(tally.comebacks["lost"]),
        returns=Total(tally.comebacks["return"]),
        refusals=Total(tally.comebacks["refuse"]),
        tokens=_tokens(offered),
        throughput=_throughput(offered, duration_s),
        goodput=_goodput(offered, slos, duration_s),
        hops=_hops(offered),
        capabilities=_capabilities(offered, slos, duration_s),
        replicas={
            name: _replica(replica, tally.served_by(name))
            for name, replica in sorted(tally.replicas.items())
        },
        faults=tally.faults,
        policy_failures=tally.policy_failures,
        bus_troubles=dict(sorted(tally.bus_troubles.items())),
        slo=dict(slos),
        machine=facts.machine,
        **_latencies(offered),
    )


def _problems(tally: Tally, facts: RunFacts) -> list[str]:
    problems = list(facts.problems)
    if tally.gaps.missing:
        problems.insert(0, f"{tally.gaps.missing} events missing")
    if tally.started is not None and tally.ended is None:
        problems.append("the log stops before run.ended")
    return list(dict.fromkeys(problems))


def _requests(offered: list[RequestTally]) -> Requests:
    counts = dict.fromkeys(OUTCOMES, 0)
    reasons: dict[str, int] = {}
    unresolved = 0
    for request in offered:
        outcome = request.outcome
        if outcome is None:
            unresolved += 1
            continue
        counts[outcome.outcome] = counts.get(outcome.outcome, 0) + 1
        if outcome.outcome != "completed":
            code = outcome.code or "unknown"
            reasons[code] = reasons.get(code, 0) + 1
    return Requests(
        offered=len(offered),
        unresolved=unresolved,
        by_reason=dict(sorted(reasons.items())),
        **{name: counts[name] for name in OUTCOMES},
    )


def _latencies(offered: list[RequestTally]) -> _LatencyFields:
    completed = [one for one in offered if one.completed]
    gaps: dict[int, int] = {}
    for request in completed:
        assert request.outcome is not None
        for bound, count in request.outcome.itl_ns.items():
            gaps[bound] = gaps.get(bound, 0) + count
    return {
        "ttft": distribution(_known(one.ttft_ns for one in completed)),
        "tpot": distribution(_known(one.tpot_ns for one in completed)),
        "itl": histogram_distribution(gaps),
        "e2e": distribution(_known(one.e2e_ns for one in completed)),
        "queue": distribution(one.queue_ns for one in completed),
    }


def _known(values: Iterable[float | None]) -> Iterable[float]:
    return (value for value in values if value is not None)


def _tokens(offered: list[RequestTally]) -> Tokens:
    return Tokens(
        prompt=sum(one.prompt_tokens for one in offered),
        output=sum(one.outcome.n_tokens for one in offered if one.outcome is not None),
    )


def _throughput(offered: list[RequestTally], duration_s: float | None) -> Throughput:
    if not duration_s:
        return Throughput(None, None, None)
    return Throughput(
        len(offered) / duration_s,
        sum(one.completed for one in offered) / duration_s,
        _tokens(offered).output / duration_s,
    )


def _goodput(
    offered: list[RequestTally], slos: Mapping[str, Slo], duration_s: float | None
) -> Goodput:
    judged = [(one, slos.get(one.capability or "", slos.get(ANY_CAPABILITY))) for one in offered]
    with_slo = [(one, slo) for one, slo in judged if slo is not None]
    if not with_slo:
        return Goodput(None, None)
    good = sum(one.completed and _within(one, slo) for one, slo in with_slo)
    return Goodput(good / len(with_slo), good / duration_s if duration_s else None)


def _within(request: RequestTally, slo: Slo) -> bool:
    pairs = (
        (request.ttft_ns, slo.ttft_ms),
        (request.tpot_ns, slo.tpot_ms),
        (request.e2e_ns, slo.e2e_ms),
    )
    return all(
        limit is None or value is None or value <= limit * NS_PER_MS for value, limit in pairs
    )


def _hops(offered: list[RequestTally]) -> Hops:
    hops = [1 + one.delegations for one in offered if one.assigned]
    return Hops(sum(hops) / len(hops), max(hops)) if hops else Hops(None, None)


def _capabilities(
    offered: list[RequestTally], slos: Mapping[str, Slo], duration_s: float | None
) -> dict[str, CapabilitySection]:
    asked: dict[str, list[RequestTally]] = {}
    for request in offered:
        asked.setdefault(request.capability or "", []).append(request)
    return {
        name: CapabilitySection(
            requests=_requests(group),
            delegated=sum(one.delegations > 0 for one in group),
            tokens=_tokens(group),
            goodput=_goodput(group, slos, duration_s),
            **_latencies(group),
        )
        for name, group in sorted(asked.items())
    }


def _replica(replica: ReplicaTally, served: list[RequestTally]) -> ReplicaSection:
    loads = replica.loads
    mean = replica.running_sum / loads if loads else None
    return ReplicaSection(
        state=replica.state,
        offers=sorted(replica.offers),
        concurrency=replica.concurrency or None,
        started=replica.started,
        completed=replica.ended["completed"],
        failed=replica.ended["failed"] + replica.ended["worker_died"],
        delegated=replica.comebacks["delegate"],
        refused=replica.comebacks["refuse"],
        returned=replica.comebacks["return"],
        lost=replica.comebacks["lost"],
        output_tokens=replica.output_tokens,
        worker_exits=replica.worker_exits,
        running_mean=mean,
        running_max=replica.running_max if loads else None,
        waiting_max=replica.waiting_max if loads else None,
        busy_share=mean / replica.concurrency if mean is not None and replica.concurrency else None,
        ttft=distribution(_known(one.ttft_ns for one in served)),
        e2e=distribution(_known(one.e2e_ns for one in served)),
    )
