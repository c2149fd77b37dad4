"""From a valid scenario to what the runtime and the simulator take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from anyserve.core.messages import Limits, Offer
from anyserve.core.spec import (
    AppSpec,
    BrokerSpec,
    CapabilitySpec,
    ClusterSpec,
    DelegationSpec,
    EngineSpec,
    Expectation,
    FaultSpec,
    LadderSpec,
    NetworkSpec,
    ObjectsSpec,
    ReplicaSpec,
    SchedulerSpec,
    SimSpec,
)
from anyserve.errors import UsageError
from anyserve.workload.doors import ingress_spec
from anyserve.workload.expectations import parse_expectation
from anyserve.workload.facts import (
    all_replicas,
    concurrency_of,
    replica_ids,
    served_by_app,
    servers_of,
    task_of,
    token_limit,
    upgrades_of,
)
from anyserve.workload.load import Scenario
from anyserve.workload.plan import make_plan
from anyserve.workload.problems import nearest
from anyserve.workload.profiles import placed_profile
from anyserve.workload.schema import Engine, Fault, Replica, ScenarioFile, Section, Sim, SloTimes
from anyserve.workload.stream_plan import StreamPlan
from anyserve.workload.traffic import SCHEDULER_ENTRY, PlannedPhase, TrafficPlan

DEFAULT_SIM = SimSpec()
ANY_ENTRY = "any"
ANY_CAPABILITY = "*"
_TIMES = frozenset({"by", "jitter", "down"})
NS_PER_MS = 1_000_000

EngineKindOf = Callable[[Engine], str]
"""Says which engine an `Engine` section means on this machine."""


class SloSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a request must stay within to count as good; None asks nothing."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a run will do, for `--dry-run`. Counts by name, in the order of the file."""

    duration_s: float
    requests: int
    prompt_tokens: int
    output_tokens: int
    requests_by_phase: Mapping[str, int]
    requests_by_stream: Mapping[str, int]
    requests_by_entry: Mapping[str, int]
    phases: tuple[PlannedPhase, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "duration_s": self.duration_s,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "requests_by_phase": dict(self.requests_by_phase),
            "requests_by_stream": dict(self.requests_by_stream),
            "requests_by_entry": dict(self.requests_by_entry),
            "phases": [msgspec.to_builtins(phase) for phase in self.phases],
        }


@dataclass(frozen=True, slots=True)
class Compiled:
    """A scenario ready to run. `slo` is by capability asked, `*` for all others."""

    cluster: ClusterSpec
    plan: TrafficPlan
    faults: tuple[FaultSpec, ...]
    expectations: tuple[Expectation, ...]
    slo: Mapping[str, SloSpec]
    seed: int
    source_path: Path | None
    sim: SimSpec = DEFAULT_SIM

    def facts(self) -> PlanFacts:
        """What the run will do, counted over the plan."""
        requests = self.plan.requests
        by_phase = Counter(request.phase for request in requests)
        by_stream = Counter(request.stream for request in requests)
        return PlanFacts(
            duration_s=self.plan.duration_ns / 1e9,
            requests=len(requests),
            prompt_tokens=sum(request.prompt_tokens for request in requests),
            output_tokens=sum(request.max_tokens for request in requests),
            requests_by_phase={phase.name: by_phase[phase.name] for phase in self.plan.phases},
            requests_by_stream=dict(sorted(by_stream.items())),
            requests_by_entry=dict(sorted(Counter(one.entry for one in requests).items())),
            phases=self.plan.phases,
        )


def compile_scenario(
    scenario: Scenario,
    *,
    seed: int,
    entry: str | None = None,
    duration_ns: int | None = None,
    engine_kind: EngineKindOf | None = None,
) -> Compiled:
    """Everything a run needs, decided.

    `entry` sends every request in at `scheduler`, `any` replica or one of them, whatever the
    streams say. `duration_ns` cuts the traffic off, or draws its last phase out; faults that would
    come later are left out. Without `engine_kind` an engine of kind `auto` stays `auto`.

    Raises:
        UsageError: `entry` names no replica, or the duration is not positive.
    """
    if duration_ns is not None and duration_ns <= 0:
        raise UsageError("the duration must be longer than 0s", code="bad_duration")
    file = scenario.file
    plan = make_plan(
        _streams(file, entry),
        file.traffic.phases,
        seed=seed,
        duration_ns=duration_ns,
        directory=scenario.path.parent if scenario.path is not None else None,
    )
    faults = _faults(scenario)
    return Compiled(
        cluster=_cluster(file, seed, engine_kind, _directory(scenario)),
        plan=plan,
        faults=tuple(fault for fault in faults if fault.at_ns < plan.duration_ns),
        expectations=_expectations(scenario),
        slo=_slos(file),
        seed=seed,
        source_path=scenario.path,
        sim=_sim(file.sim),
    )


# --- cluster -----------------------------------------------------------------------------------


def _directory(scenario: Scenario) -> Path:
    """What relative paths in the file are relative to."""
    return Path() if scenario.path is None else scenario.path.absolute().parent


def _cluster(
    file: ScenarioFile, seed: int, engine_kind: EngineKindOf | None, directory: Path
) -> ClusterSpec:
    cluster = file.cluster
    return ClusterSpec(
        name=file.name,
        capabilities=tuple(
            CapabilitySpec(
                name=name,
                queue_limit=one.queue_limit,
                target_wait_ms=_ms(one.target_wait),
                reserve=one.reserve,
                mid_stream=one.mid_stream,
            )
            for name, one in cluster.capabilities.items()
        ),
        replicas=tuple(
            _replica(group, replica_id, replica, engine_kind, directory)
            for group, replica_id, replica in all_replicas(file)
        ),
        ladder=LadderSpec(upgrades=upgrades_of(file)),
        delegation=DelegationSpec(
            limit=cluster.delegation.limit, overload=cluster.delegation.overload
        ),
        scheduler=_scheduler(file, seed),
        broker=BrokerSpec(url=cluster.broker.url),
        objects=ObjectsSpec(
            limit_bytes=cluster.objects.limit,
            ttl_ms=_whole_ms(cluster.objects.ttl),
            threshold_bytes=cluster.objects.threshold,
        ),
        call_depth=cluster.call_depth,
        request_lifetime_ms=cluster.request_lifetime // NS_PER_MS,
        ingress=None if file.ingress is None else ingress_spec(file.ingress, directory),
    )


def _scheduler(file: ScenarioFile, seed: int) -> SchedulerSpec:
    section = file.cluster.scheduler
    return SchedulerSpec(
        policy=section.policy,
        policy_options=section.options,
        order=section.order,
        ageing_ms=_whole_ms(section.ageing),
        wait_for_replica_ms=section.wait_for_replica // NS_PER_MS,
        recovery_limit=file.cluster.recovery.limit,
        refuse_limit=file.cluster.refuse.limit,
        return_limit=file.cluster.return_.limit,
        heartbeat_ms=_whole_ms(section.heartbeat),
        lost_after_ms=_whole_ms(section.lost_after),
        ack_ms=_whole_ms(section.ack),
        seed=seed,
    )


def _replica(
    group: str,
    replica_id: str,
    replica: Replica,
    engine_kind: EngineKindOf | None,
    directory: Path,
) -> ReplicaSpec:
    offers = tuple(
        Offer(
            capability=name,
            attributes=offering.attributes,
            limits=Limits(max_tokens=token_limit(offering, replica.engine)),
        )
        for name, offering in replica.capabilities.items()
    )
    return ReplicaSpec(
        id=replica_id,
        offers=offers,
        engine=_engine(replica, engine_kind, directory),
        concurrency=concurrency_of(replica),
        prefetch=replica.prefetch,
        entry_queue=replica.entry_queue,
        group=group,
        app=_app(replica),
    )


def _app(replica: Replica) -> AppSpec | None:
    if replica.app is None:
        return None
    return AppSpec(name=replica.app.name, serves=served_by_app(replica))


def _engine(replica: Replica, engine_kind: EngineKindOf | None, directory: Path) -> EngineSpec:
    section = replica.engine
    kind: str = section.kind
    if set(served_by_app(replica)) == set(replica.capabilities):
        kind = "none"  # whatever --engine says: nothing here would use it
    if kind == "auto" and engine_kind is not None:
        kind = engine_kind(section)
    return EngineSpec(
        kind=kind,
        model=section.model,
        task=task_of(section),
        max_model_len=section.max_model_len,
        max_num_seqs=section.max_num_seqs or concurrency_of(replica),
        max_num_batched_tokens=section.max_num_batched_tokens,
        kv_cache_gib=section.kv_cache_gib,
        gpus=section.gpus,
        threads=section.threads,
        dtype=section.dtype,
        profile=placed_profile(section.profile, directory),
        step_scale=section.step_scale,
        prefill_scale=section.prefill_scale,
        step_ms=section.step / NS_PER_MS,
        options=section.options,
    )


# --- traffic -----------------------------------------------------------------------------------


def _streams(file: ScenarioFile, entry: str | None) -> list[StreamPlan]:
    plans = []
    for name, stream in file.traffic.streams.items():
        servers = servers_of(file, stream)
        entries = entries_of(file, entry or stream.entry)
        plans.append(StreamPlan(name=name, stream=stream, task=servers[0].task, entries=entries))
    return plans


def entries_of(file: ScenarioFile, entry: str) -> tuple[str, ...]:
    """The entries that a name stands for: itself, a group's replicas, or all (`any`).

    Raises:
        UsageError: it stands for none.
    """
    if entry == SCHEDULER_ENTRY:
        return (SCHEDULER_ENTRY,)
    if entry == ANY_ENTRY:
        return tuple(replica_id for _group, replica_id, _replica in all_replicas(file))
    group = file.cluster.replicas.get(entry)
    if group is not None:
        return tuple(replica_ids(entry, group))
    known = [replica_id for _group, replica_id, _replica in all_replicas(file)]
    if entry in known:
        return (entry,)
    hint = nearest(entry, [SCHEDULER_ENTRY, ANY_ENTRY, *known])
    raise UsageError(f"no replica '{entry}' to enter at", code="unknown_entry", hint=hint)


# --- faults, expectations, SLO -----------------------------------------------------------------


def _faults(scenario: Scenario) -> list[FaultSpec]:
    faults = []
    for index, fault in enumerate(scenario.file.faults):
        ((action, what),) = fault.actions().items()
        line = scenario.document.line_of(("faults", index, action))
        faults.append(_fault(fault, action, what, line))
    return sorted(faults, key=lambda one: one.at_ns)


def _fault(fault: Fault, action: str, what: Section, line: int | None) -> FaultSpec:
    fields = {name: value for name, value in what if value is not None}
    factor = fields.pop("factor", None)
    return FaultSpec(
        at_ns=fault.at,
        action=action,
        target=_target(action, fields),
        duration_ns=fault.for_,
        factor=factor,
        options={f"{n}_ns" if n in _TIMES else n: value for n, value in fields.items()},
        line=line,
    )


def _target(action: str, fields: dict[str, Any]) -> str:
    """Takes the target out of the fields: `replica s1`, `worker s1`, `broker`, `scheduler`."""
    for kind in ("replica", "worker"):
        if kind in fields:
            return f"{kind} {fields.pop(kind)}"
    return action.removeprefix("restart-")


def _expectations(scenario: Scenario) -> tuple[Expectation, ...]:
    found = []
    for index, text in enumerate(scenario.file.expect):
        expectation = parse_expectation(text, line=scenario.document.line_of(("expect", index)))
        assert expectation is not None, "checked when the scenario was loaded"
        found.append(expectation)
    return tuple(found)


def _slos(file: ScenarioFile) -> dict[str, SloSpec]:
    named = {name: _slo(times) for name, times in file.slo.capabilities.items()}
    common = _slo(file.slo)
    return named if common == SloSpec() else {ANY_CAPABILITY: common, **named}


def _slo(times: SloTimes) -> SloSpec:
    return SloSpec(ttft_ms=_ms(times.ttft), tpot_ms=_ms(times.tpot), e2e_ms=_ms(times.e2e))


def _sim(section: Sim) -> SimSpec:
    network = section.network
    return SimSpec(
        network=NetworkSpec(
            latency_ns=network.latency,
            jitter_ns=network.jitter,
            drop=network.drop,
            duplicate=network.duplicate,
            reorder=network.reorder,
        ),
        handover_ns=section.handover,
        scheduler_ns=section.scheduler_cost,
        boot_ns=section.boot,
        load_ns=section.load,
        cores=section.cores,
        step_jitter=section.step_jitter,
    )


def _ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / NS_PER_MS


def _whole_ms(duration_ns: int) -> int:
    """At least 1: a shorter period would be none."""
    return max(1, duration_ns // NS_PER_MS)
