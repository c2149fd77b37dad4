"""The steps of `anyserve up`, one after the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.modelling import prepare as prepare_model
from anyserve.cli.session import Session
from anyserve.cli.up.closing import close_run
from anyserve.cli.up.dry_run import show_plan
from anyserve.cli.up.foreground import Foreground
from anyserve.cli.up.options import UpOptions
from anyserve.cli.up.prepare import Prepared, prepare
from anyserve.cli.up.screen import AUTO, PLAIN, TUI, choose_ui
from anyserve.errors import UsageError
from anyserve.runtime.broker.config import find_broker
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.runtime.handlers.offers import try_apps
from anyserve.runtime.player.plan_file import write_plan
from anyserve.runtime.process import NodeRole
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.memory import available_gib, check_memory
from anyserve.telemetry.runs import RunDirectory, create_run
from anyserve.workload.policies import try_policy

UI_CHOICES: Final = (AUTO, TUI, PLAIN, "json", "none")


def run_up(session: Session, options: UpOptions) -> int:
    """Everything that `anyserve up` does; returns its exit code.

    Raises:
        AnyServeError: the cluster was not started, and why.
    """
    if options.ui not in UI_CHOICES:
        hint = f"one of: {', '.join(UI_CHOICES)}"
        raise UsageError(f"there is no ui '{options.ui}'", code="usage", hint=hint)
    if not options.dry_run:
        options = replace(options, ui=choose_ui(session, options.ui, as_json=options.as_json))
    prepared = prepare(options)
    if options.dry_run:
        show_plan(session, prepared, as_json=options.as_json)
        return ExitCode.OK
    _announce(session, prepared)
    _check(session, prepared)
    prepared = _with_apps(session, prepared)
    _prepare_models(session, prepared)
    run = _make_run(prepared)
    config = _supervisor_config(prepared, run)
    ended = asyncio.run(Foreground(session, options, config).run())
    return close_run(session, prepared, run, ended)


def _announce(session: Session, prepared: Prepared) -> None:
    if prepared.options.ui == "none":
        return
    if prepared.fallback:
        session.diagnostics.warn(prepared.fallback)
    compiled = prepared.compiled
    facts = compiled.facts()
    traffic = f"{facts.requests} requests in {facts.duration_s:g} s, seed {compiled.seed}"
    if not prepared.options.traffic:
        traffic = "no traffic: it serves until Ctrl-C"
    session.diagnostics.say(
        f"{compiled.cluster.name}: {len(compiled.cluster.replicas)} replicas, {traffic}"
    )
    if not prepared.options.traffic and compiled.cluster.ingress is None:
        session.diagnostics.hint("the scenario opens no door; --set ingress.http=8000 does")


def _check(session: Session, prepared: Prepared) -> None:
    """What would fail anyway is said before models are made ready and anything is started."""
    cluster = prepared.compiled.cluster
    if cluster.broker.url is None:
        find_broker()
    ClusterStore(state_dir(session.environ)).refuse_live(cluster.name)
    if prepared.options.check_memory:
        check_memory(cluster, available_gib())
    own = try_policy(cluster.scheduler, _directory(prepared))
    if own is not None and prepared.options.ui != "none":
        session.diagnostics.say(f"policy {own.said}")


def _with_apps(session: Session, prepared: Prepared) -> Prepared:
    """With what the apps say of themselves; they are tried before anything is started."""
    compiled = prepared.compiled
    cluster, facts = asyncio.run(try_apps(compiled.cluster, _directory(prepared)))
    if prepared.options.ui != "none":
        for name, app in facts.items():
            session.diagnostics.say(f"app {name} from {app.origin}")
    return replace(prepared, compiled=replace(compiled, cluster=cluster))


def _prepare_models(session: Session, prepared: Prepared) -> None:
    names = {
        replica.engine.model: None
        for replica in prepared.compiled.cluster.replicas
        if replica.engine.kind == "vllm" and replica.engine.model is not None
    }
    for name in names:
        prepare_model(name, session.diagnostics)


def _make_run(prepared: Prepared) -> RunDirectory:
    options, compiled = prepared.options, prepared.compiled
    root = options.runs.absolute()
    run = create_run(root, compiled.cluster.name, compiled.seed, datetime.now(UTC))
    resolved = msgspec.json.format(msgspec.json.encode(prepared.resolved()), indent=2)
    run.scenario.write_bytes(resolved + b"\n")
    write_plan(_plan_path(run), compiled.plan)
    return run


def _plan_path(run: RunDirectory) -> Path:
    return run.path / "plan.json"


def _supervisor_config(prepared: Prepared, run: RunDirectory) -> SupervisorConfig:
    options, compiled = prepared.options, prepared.compiled
    return SupervisorConfig(
        cluster=compiled.cluster,
        run_dir=str(run.path),
        plan_path=str(_plan_path(run)) if options.traffic else None,
        faults=compiled.faults if options.traffic else (),
        keep=options.keep,
        scenario=str(options.scenario),
        check_memory=options.check_memory,
        extra=_extra(prepared, run),
    )


def _extra(prepared: Prepared, run: RunDirectory) -> dict[str, dict[str, Any]]:
    options = prepared.options
    return {
        NodeRole.SCHEDULER.value: {"scenario_dir": _directory(prepared)},
        NodeRole.REPLICA.value: {"scenario_dir": _directory(prepared), "reload": options.reload},
        NodeRole.PLAYER.value: {
            "run": run.id,
            "scenario": prepared.compiled.cluster.name,
            "record_text": options.record_text,
        },
    }


def _directory(prepared: Prepared) -> str:
    """Where users' classes are looked for first."""
    return str(prepared.options.scenario.absolute().parent)
