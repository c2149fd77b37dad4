"""`anyserve up --dry-run`: what would run, as text or JSON."""

from __future__ import annotations

from typing import Any, Final

from anyserve.cli.session import Session
from anyserve.cli.up.prepare import Prepared
from anyserve.core.spec import ReplicaSpec
from anyserve.runtime.supervisor.memory import available_gib, needed_gib

SCHEMA: Final = "anyserve.plan/1"


def show_plan(session: Session, prepared: Prepared, *, as_json: bool) -> None:
    """Print the validated plan; nothing is started, nothing is written."""
    if as_json:
        session.output.json(plan_object(prepared))
        return
    for line in plan_lines(prepared):
        session.output.line(line)
    session.diagnostics.hint(f"run it with: {prepared.options.command_line()}")


def plan_object(prepared: Prepared) -> dict[str, Any]:
    """The plan as `--json` prints it."""
    compiled = prepared.compiled
    cluster = compiled.cluster
    return {
        "schema": SCHEMA,
        "scenario": cluster.name,
        "file": str(prepared.options.scenario),
        "seed": compiled.seed,
        "broker": cluster.broker.url or "embedded",
        "topics": f"anyserve/{cluster.name}/#",
        "policy": cluster.scheduler.policy,
        "engine_fallback": prepared.fallback or None,
        "replicas": [_replica(replica) for replica in cluster.replicas],
        "ladder": dict(cluster.ladder.upgrades),
        "delegation_limit": cluster.delegation.limit,
        "memory_gib": {"needed": sum(needed_gib(cluster).values()), "available": available_gib()},
        "traffic": compiled.facts().to_dict(),
        "faults": [
            {"at_s": fault.at_ns / 1e9, "action": fault.action, "target": fault.target}
            for fault in compiled.faults
        ],
        "expectations": [one.text for one in compiled.expectations],
    }


def _replica(replica: ReplicaSpec) -> dict[str, Any]:
    return {
        "id": replica.id,
        "capabilities": {offer.capability: offer.limits.max_tokens for offer in replica.offers},
        "engine": replica.engine.kind,
        "model": replica.engine.model,
        "app": None if replica.app is None else replica.app.name,
        "concurrency": replica.concurrency,
    }


def plan_lines(prepared: Prepared) -> list[str]:
    """The plan as text."""
    plan = plan_object(prepared)
    traffic = plan["traffic"]
    lines = [
        f"{plan['scenario']}  seed {plan['seed']}",
        f"traffic   {traffic['requests']} requests in {traffic['duration_s']:g} s",
        f"broker    {plan['broker']}, topics {plan['topics']}",
        f"scheduler policy {plan['policy']}, at most {plan['delegation_limit']} delegation(s)",
    ]
    if plan["engine_fallback"]:
        lines.insert(1, plan["engine_fallback"])
    lines += [_replica_line(replica) for replica in plan["replicas"]]
    if plan["ladder"]:
        lines.append("ladder    " + ", ".join(f"{a} → {b}" for a, b in plan["ladder"].items()))
    memory = plan["memory_gib"]
    if memory["needed"]:
        lines.append(
            f"memory    {memory['needed']:.1f} GiB needed, {memory['available']:.1f} GiB available"
        )
    lines += _traffic_lines(traffic)
    lines += [f"fault     {f['at_s']:g} s {f['action']} {f['target']}" for f in plan["faults"]]
    lines += [f"expect    {text}" for text in plan["expectations"]]
    return lines


def _replica_line(replica: dict[str, Any]) -> str:
    offers = ", ".join(
        name if limit is None else f"{name} (up to {limit} tokens)"
        for name, limit in replica["capabilities"].items()
    )
    engine = f"{replica['engine']} {replica['model'] or ''}".strip()
    app = f"app {replica['app']}"
    runs = engine
    if replica["app"]:
        runs = app if replica["engine"] == "none" else f"{engine} and {app}"
    return f"replica   {replica['id']}: {offers}; {runs}, {replica['concurrency']} at once"


def _traffic_lines(traffic: dict[str, Any]) -> list[str]:
    phases = ", ".join(f"{name} {count}" for name, count in traffic["requests_by_phase"].items())
    streams = ", ".join(f"{name} {count}" for name, count in traffic["requests_by_stream"].items())
    entries = ", ".join(f"{name} {count}" for name, count in traffic["requests_by_entry"].items())
    return [
        f"phases    {phases}",
        f"streams   {streams}",
        f"entries   {entries}",
        f"tokens    {traffic['prompt_tokens']} in, up to {traffic['output_tokens']} out",
    ]
