from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from anyserve.core.spec import ClusterSpec, FaultSpec
from anyserve.errors import UsageError
from anyserve.runtime.engines.base import Sampling
from anyserve.runtime.supervisor.faults import plan_faults
from anyserve.workload.compile import Compiled, SloSpec, compile_scenario
from anyserve.workload.load import live_problems, parse_scenario
from anyserve.workload.profiles import shipped_profiles
from anyserve.workload.schema import FAULT_ACTIONS, Engine

SECOND = 1_000_000_000

FAULTS = """
faults:
  - {at: 12s, for: 2s, slow: {replica: e-1, factor: 3}}
  - {at: 2s, kill: {worker: s1}}
  - {at: 3s, for: 1s, hang: {replica: s1}}
  - {at: 4s, for: 5s, drain: {replica: h1}}
"""
LATER_FAULTS = """
faults:
  - {at: 5s, partition: {replica: h1}}
  - {at: 6s, drop: {replica: h1, share: 0.1}}
  - {at: 7s, duplicate: {replica: h1, share: 0.2}}
  - {at: 8s, delay: {replica: h1, by: 50ms, jitter: 5ms}}
  - {at: 9s, restart-broker: {down: 1s}}
  - {at: 10s, restart-scheduler: {}}
"""


def compiled(text: str, *overrides: str, duration_ns: int | None = None) -> Compiled:
    scenario = parse_scenario(text, overrides=overrides)
    return compile_scenario(scenario, seed=1, duration_ns=duration_ns)


def without_faults(base: str) -> str:
    return base.replace("faults:\n  - {at: 1s, kill: {worker: s1}}\n", "")


def test_cluster(base: str) -> None:
    cluster = compiled(base).cluster
    assert cluster.name == "base"
    assert cluster.ladder.upgrades == {"decode": "decode.heavy"}
    assert [one.id for one in cluster.replicas] == ["s1", "h1", "e-1", "e-2"]
    assert [one.group for one in cluster.replicas] == ["s1", "h1", "e", "e"]
    assert [one.engine.task for one in cluster.replicas] == [
        "generate",
        "generate",
        "embed",
        "embed",
    ]
    assert cluster.replicas[0].offers[0].limits.max_tokens == 512
    assert cluster.replicas[2].offers[0].limits.max_tokens is None
    assert cluster.delegation.limit == 1
    assert cluster.scheduler.seed == 1


def test_scheduler_and_budgets(base: str) -> None:
    spec = compiled(
        base,
        "cluster.scheduler={policy: power-of-two, options: {choices: 3}, heartbeat: 500ms}",
        "cluster.recovery.limit=4",
        "cluster.return.limit=5",
        "cluster.refuse.limit=6",
        "cluster.request_lifetime=1m",
    ).cluster
    assert (spec.scheduler.policy, spec.scheduler.policy_options) == (
        "power-of-two",
        {"choices": 3},
    )
    assert spec.scheduler.heartbeat_ms == 500
    assert spec.scheduler.wait_for_replica_ms == 30_000
    assert (
        spec.scheduler.recovery_limit,
        spec.scheduler.return_limit,
        spec.scheduler.refuse_limit,
    ) == (4, 5, 6)
    assert spec.request_lifetime_ms == 60_000


def test_defaults_of_the_format_are_those_of_the_specs(base: str) -> None:
    scheduler = compiled(base).cluster.scheduler
    assert scheduler == msgspec.structs.replace(type(scheduler)(), seed=1)


def test_slots_and_sequences_follow_each_other(base: str) -> None:
    def slots(*overrides: str) -> tuple[int, int]:
        replica = compiled(base, *overrides).cluster.replicas[0]
        return replica.concurrency, replica.engine.max_num_seqs

    assert slots() == (16, 16)
    assert slots("cluster.replicas.s1.concurrency=4") == (4, 4)
    assert slots("cluster.replicas.s1.engine.max_num_seqs=6") == (6, 6)
    both = ("cluster.replicas.s1.concurrency=4", "cluster.replicas.s1.engine.max_num_seqs=6")
    assert slots(*both) == (4, 6)


def test_auto_is_resolved_where_a_resolver_is_given(base: str) -> None:
    scenario = parse_scenario(base, overrides=["cluster.replicas.h1.engine.kind=model"])
    asked: list[str | None] = []

    def kind(engine: Engine) -> str:
        asked.append(engine.model)
        return "vllm"

    resolved = compile_scenario(scenario, seed=1, engine_kind=kind).cluster
    assert [one.engine.kind for one in resolved.replicas] == ["vllm", "model", "vllm", "vllm"]
    assert "smollm2-135m" in asked
    unresolved = compile_scenario(scenario, seed=1).cluster
    assert unresolved.replicas[0].engine.kind == "auto"


def test_the_known_embedder_embeds(base: str) -> None:
    assert shipped_profiles()["minilm"].embeds
    told = compiled(
        base,
        "cluster.replicas.e.engine.task=generate",
        "traffic.streams.search.output_tokens=4",
    )
    assert {one.engine.task for one in told.cluster.replicas} == {"generate"}


def test_attributes_and_limits_of_an_offer(base: str) -> None:
    offer = "{decode: {attributes: {model: m}, limits: {max_tokens: 100}}}"
    (made,) = compiled(base, f"cluster.replicas.s1.capabilities={offer}").cluster.replicas[0].offers
    assert made.attributes == {"model": "m"}
    assert made.limits.max_tokens == 100


def test_a_cluster_survives_json(base: str) -> None:
    cluster = compiled(base).cluster
    assert msgspec.json.decode(msgspec.json.encode(cluster), type=ClusterSpec) == cluster


def test_faults_are_those_the_supervisor_takes(base: str) -> None:
    run = compiled(without_faults(base) + FAULTS)
    assert [(one.at_ns // SECOND, one.action, one.target) for one in run.faults] == [
        (2, "kill", "worker s1"),
        (3, "hang", "replica s1"),
        (4, "drain", "replica h1"),
        (12, "slow", "replica e-1"),
    ]
    assert run.faults[3].factor == 3
    assert run.faults[3].duration_ns == 2 * SECOND
    lines = (without_faults(base) + FAULTS).splitlines()
    assert all(one.line and one.action in lines[one.line - 1] for one in run.faults)
    assert len(plan_faults(run.faults)) == 7


def test_a_broker_of_somebody_else_cannot_be_restarted_live(base: str) -> None:
    text = without_faults(base) + LATER_FAULTS
    assert live_problems(parse_scenario(text)) == []
    theirs = parse_scenario(text, overrides=["cluster.broker.url=mqtt://10.0.0.5:1883"])
    (problem,) = live_problems(theirs)
    assert problem.code == "AS-S060"
    assert "restart-broker" in text.splitlines()[(problem.line or 0) - 1]


def test_faults_of_the_connection_and_restarts_are_those_the_supervisor_takes(base: str) -> None:
    scenario = parse_scenario(without_faults(base) + LATER_FAULTS)
    faults = {one.action: one for one in compile_scenario(scenario, seed=1).faults}
    assert faults["partition"].target == "replica h1"
    assert faults["drop"].options == {"share": 0.1}
    assert faults["delay"].options == {"by_ns": 50_000_000, "jitter_ns": 5_000_000}
    assert (faults["restart-broker"].target, faults["restart-broker"].options) == (
        "broker",
        {"down_ns": SECOND},
    )
    assert faults["restart-scheduler"].target == "scheduler"
    assert msgspec.json.decode(
        msgspec.json.encode(list(faults.values())), type=list[FaultSpec]
    ) == list(faults.values())


def test_the_grammar_of_faults_is_complete() -> None:
    assert set(FAULT_ACTIONS) >= {"kill", "hang", "slow", "drain", "partition", "drop"}
    assert set(FAULT_ACTIONS) >= {"duplicate", "delay", "restart-broker", "restart-scheduler"}


def test_expectations_know_their_lines(base: str) -> None:
    (expectation,) = compiled(base).expectations
    assert (expectation.metric, expectation.op, expectation.value) == (
        "requests.completed",
        "==",
        "requests.offered",
    )
    assert base.splitlines()[(expectation.line or 0) - 1].endswith(expectation.text)


def test_numbers_in_expectations(base: str) -> None:
    (one,) = compiled(base, "expect=[ttft.p95_ms <= 1.5e3]").expectations
    assert (one.value, one.line) == (1500.0, None)


def test_slo(base: str) -> None:
    assert compiled(base).slo == {}
    run = compiled(base, "slo={ttft: 800ms, capabilities: {decode.heavy: {e2e: 9s}}}")
    assert run.slo == {"*": SloSpec(ttft_ms=800), "decode.heavy": SloSpec(e2e_ms=9000)}


@pytest.mark.parametrize(("seconds", "phases", "chat"), [(5, 1, 5), (12, 2, 14), (20, 2, 30)])
def test_duration_cuts_off_or_draws_out(base: str, seconds: int, phases: int, chat: int) -> None:
    run = compiled(base, duration_ns=seconds * SECOND)
    assert run.plan.duration_ns == seconds * SECOND
    assert len(run.plan.phases) == phases
    assert run.facts().requests_by_stream["chat"] == chat


def test_duration_leaves_out_later_faults(base: str) -> None:
    assert len(compiled(base).faults) == 1
    assert compiled(base, duration_ns=SECOND).faults == ()


def test_a_duration_of_nothing(base: str) -> None:
    with pytest.raises(UsageError):
        compiled(base, duration_ns=0)


def test_facts_for_a_dry_run(base: str) -> None:
    facts = compiled(base).facts()
    assert json.loads(json.dumps(facts.to_dict())) == facts.to_dict()
    assert facts.requests == 40
    assert facts.requests_by_phase == {"calm": 20, "burst": 20}
    assert facts.requests_by_stream == {"chat": 20, "search": 20}
    assert facts.prompt_tokens == 20 * 32 + 20 * 16
    assert facts.output_tokens == 20 * 8
    assert facts.duration_s == 15


def _sampling() -> Iterator[str]:
    yield from ("temperature: 0.5", "top_p: 0.9", "top_k: 5", "min_p: 0.1", "seed: 3")
    yield from ("ignore_eos: false", "stop: [x]", "presence_penalty: 1", "frequency_penalty: 1")
    yield "repetition_penalty: 1.1"


def test_sampling_is_what_the_engines_take(base: str) -> None:
    words = ", ".join(_sampling())
    plan = compiled(base, f"traffic.streams.chat.sampling={{{words}}}").plan
    chat = next(one for one in plan.requests if one.stream == "chat")
    made = msgspec.convert({**chat.sampling, "max_tokens": chat.max_tokens}, type=Sampling)
    assert set(chat.sampling) <= set(Sampling.__struct_fields__)
    assert (made.temperature, made.top_k, made.stop, made.ignore_eos) == (0.5, 5, ["x"], False)
    assert made.max_tokens == 8
