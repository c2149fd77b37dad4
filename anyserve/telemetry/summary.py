"""What a run came to, as the data of `summary.json`.

Unknown is null and zero is 0. Latencies are those of completed requests, measured from the time
the plan wanted the request sent; what became of the others is counted under `requests`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from anyserve.core.events import Envelope
from anyserve.telemetry.request_table import COMPLETED
from anyserve.telemetry.stats import NS_PER_MS, Distribution, distribution, histogram_distribution
from anyserve.telemetry.tally import ReplicaTally, Tally

if TYPE_CHECKING:
    from anyserve.telemetry.request_groups import Group

SUMMARY_SCHEMA = "anyserve.summary/1"
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
    from anyserve.telemetry.request_groups import (  # noqa: PLC0415 - numpy: not for every start
        groups_of,
        whole_of,
    )

    duration_s = tally.duration_s
    started = tally.started
    problems = _problems(tally, facts)
    groups = groups_of(tally.requests)
    whole = whole_of(tally.requests, groups)
    latencies = {
        name: _latencies(group, tally.requests.itl.get(name, {})) for name, group in groups.items()
    }
    overall = _overall(whole, groups, latencies, tally.requests.itl)
    served = whole.by_server()
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
        requests=_requests(whole),
        delegations=_delegations(whole),
        recoveries=Total(tally.comebacks["lost"]),
        returns=Total(tally.comebacks["return"]),
        refusals=Total(tally.comebacks["refuse"]),
        tokens=_tokens(whole),
        throughput=_throughput(whole, duration_s),
        goodput=_goodput(groups, slos, duration_s),
        hops=_hops(whole),
        capabilities={
            name: CapabilitySection(
                requests=_requests(group),
                delegated=_delegated(group),
                tokens=_tokens(group),
                goodput=_goodput({name: group}, slos, duration_s),
                **latencies[name],
            )
            for name, group in groups.items()
        },
        replicas={
            name: _replica(replica, served.get(name))
            for name, replica in sorted(tally.replicas.items())
        },
        faults=tally.faults,
        policy_failures=tally.policy_failures,
        bus_troubles=dict(sorted(tally.bus_troubles.items())),
        slo=dict(slos),
        machine=facts.machine,
        **overall,
    )


def _problems(tally: Tally, facts: RunFacts) -> list[str]:
    problems = list(facts.problems)
    if tally.gaps.missing:
        problems.insert(0, f"{tally.gaps.missing} events missing")
    if tally.started is not None and tally.ended is None:
        problems.append("the log stops before run.ended")
    return list(dict.fromkeys(problems))


def _requests(group: Group) -> Requests:
    counts = dict.fromkeys(OUTCOMES, 0)
    reasons: Counter[str] = Counter()
    unresolved = 0
    for way, count in group.ways.items():
        if way.outcome is None:
            unresolved += count
            continue
        counts[way.outcome] = counts.get(way.outcome, 0) + count
        if way.outcome != COMPLETED:
            reasons[way.code or "unknown"] += count
    return Requests(
        offered=len(group),
        unresolved=unresolved,
        by_reason=dict(sorted(reasons.items())),
        **{name: counts[name] for name in OUTCOMES},
    )


def _delegations(whole: Group) -> Delegations:
    reasons: Counter[str] = Counter()
    for way, count in whole.ways.items():
        for said in way.delegated:
            reasons[said.reason] += count
    edges = {f"{before}->{after}": count for (before, after), count in whole.edges().items()}
    return Delegations(
        total=reasons.total(),
        requests=_delegated(whole),
        max_per_request=max((len(way.delegated) for way in whole.ways), default=0),
        by_edge=dict(sorted(edges.items())),
        by_reason=dict(sorted(reasons.items())),
    )


def _delegated(group: Group) -> int:
    return sum(count for way, count in group.ways.items() if way.delegated)


def _overall(
    whole: Group,
    groups: Mapping[str, Group],
    latencies: Mapping[str, _LatencyFields],
    gaps: Mapping[str, Mapping[int, int]],
) -> _LatencyFields:
    """The times of all requests."""
    if len(groups) == 1:
        return next(iter(latencies.values()))
    total: Counter[int] = Counter()
    for histogram in gaps.values():
        total.update(histogram)
    return _latencies(whole, total)


def _latencies(group: Group, gaps: Mapping[int, int]) -> _LatencyFields:
    return {
        "ttft": distribution(group.times("ttft")),
        "tpot": distribution(group.times("tpot")),
        "itl": histogram_distribution(gaps),
        "e2e": distribution(group.times("e2e")),
        "queue": distribution(group.times("queue")),
    }


def _tokens(group: Group) -> Tokens:
    return Tokens(prompt=group.sum_of("prompt_tokens"), output=group.sum_of("n_tokens"))


def _throughput(whole: Group, duration_s: float | None) -> Throughput:
    if not duration_s:
        return Throughput(None, None, None)
    return Throughput(
        len(whole) / duration_s,
        whole.completed / duration_s,
        _tokens(whole).output / duration_s,
    )


def _goodput(
    groups: Mapping[str, Group], slos: Mapping[str, Slo], duration_s: float | None
) -> Goodput:
    judged = good = 0
    for name, group in groups.items():
        slo = slos.get(name, slos.get(ANY_CAPABILITY))
        if slo is not None:
            judged += len(group)
            good += _within(group, slo)
    if not judged:
        return Goodput(None, None)
    return Goodput(good / judged, good / duration_s if duration_s else None)


def _within(group: Group, slo: Slo) -> int:
    """How many of the completed requests kept all limits."""
    wanted = (("ttft", slo.ttft_ms), ("tpot", slo.tpot_ms), ("e2e", slo.e2e_ms))
    kept = []
    for kind, limit in wanted:
        if limit is not None:
            values, there = group.values(kind)
            kept.append(~there | (values <= limit * NS_PER_MS))
    return int(reduce(and_, kept).sum()) if kept else group.completed


def _hops(whole: Group) -> Hops:
    hops = {way: 1 + len(way.delegated) for way in whole.ways if way.assigned}
    if not hops:
        return Hops(None, None)
    total = sum(each * whole.ways[way] for way, each in hops.items())
    return Hops(total / sum(whole.ways[way] for way in hops), max(hops.values()))


def _replica(replica: ReplicaTally, served: Group | None) -> ReplicaSection:
    loads, ended = replica.loads, replica.not_completed
    mean = replica.running_sum / loads if loads else None
    return ReplicaSection(
        state=replica.state,
        offers=sorted(replica.offers),
        concurrency=replica.concurrency or None,
        started=replica.started,
        completed=replica.completed,
        failed=ended["failed"] + ended["worker_died"],
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
        ttft=Distribution() if served is None else distribution(served.times("ttft")),
        e2e=Distribution() if served is None else distribution(served.times("e2e")),
    )
