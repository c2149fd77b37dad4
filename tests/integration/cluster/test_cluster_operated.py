"""What an operator, or a fault of a scenario, does to a running cluster, and what comes of it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from live import LiveCluster, draft, echo, outcome, replica, two_rungs, whole_answer

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import (
    FaultInjected,
    ReplicaChanged,
    RequestOffered,
    RunEnded,
    SchedulerStarted,
    TrafficRate,
)
from anyserve.core.spec import ClusterSpec, FaultSpec
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.node_control import ConnectionFault
from anyserve.runtime.origin import OriginClient
from anyserve.runtime.player import write_plan
from anyserve.runtime.process import NodeRole
from anyserve.runtime.supervisor import control
from anyserve.workload.traffic import PlannedPhase, PlannedRequest, TrafficPlan

if TYPE_CHECKING:
    from tests.integration.cluster.conftest import Make

pytestmark = pytest.mark.timeout(240)
S = 1_000_000_000


def twins(**changes: Any) -> ClusterSpec:
    """Two replicas that offer the same, so that the other one can step in."""
    spec = two_rungs(**changes)
    both = tuple(
        replica(name, "decode", "decode.heavy", engine=echo(2048), concurrency=2)
        for name in ("s1", "h1")
    )
    return ClusterSpec(
        name=spec.name, capabilities=spec.capabilities, ladder=spec.ladder, replicas=both
    )


async def completes(origin: OriginClient, count: int = 1, **changes: Any) -> None:
    wanted = draft("decode", tokens=4, **changes)
    handles = [origin.offer(wanted) for _ in range(count)]
    for handle in handles:
        end = await outcome(handle)
        assert end.kind is OutcomeKind.COMPLETED, end
        assert handle.tokens == whole_answer(wanted)


async def test_faults_of_a_connection_and_restarts_act_and_end(make: Make) -> None:
    cluster = await make(twins()).up()
    origin = await cluster.origin()
    watcher = cluster.watcher
    await completes(origin, 4)

    # Cut off, it counts as lost, and the other one serves; healed, it serves again.
    mark = watcher.mark()
    cut = ConnectionFault(kind="partition")
    await cluster.ask(control.Disturb(id="s1", how=cut))
    await watcher.event(ReplicaChanged, since=mark, replica="s1", state="lost")
    await completes(origin, 2)
    mark = watcher.mark()
    await cluster.ask(control.Disturb(id="s1", how=ConnectionFault(kind="partition", on=False)))
    await watcher.event(ReplicaChanged, since=mark, replica="s1", state="ready")
    await completes(origin, 2, entry="s1")

    # Lost, doubled and late messages cost time, never an answer or its wholeness.
    for how in (
        ConnectionFault(kind="drop", share=0.2),
        ConnectionFault(kind="duplicate", share=0.5),
        ConnectionFault(kind="delay", by_s=0.02, jitter_s=0.02),
    ):
        await cluster.ask(control.Disturb(id="h1", how=how))
    await completes(origin, 6)
    for kind in ("drop", "duplicate", "delay"):
        over = ConnectionFault(kind=kind, on=False)
        await cluster.ask(control.Disturb(id="h1", how=over))
    await completes(origin, 2, entry="h1")

    # The scheduler and the broker go and come back.
    await cluster.ask(control.Crash(name="scheduler"))
    await watcher.event(SchedulerStarted, epoch=2)
    await completes(origin, 2)
    mark = watcher.mark()
    await cluster.ask(control.Crash(name="broker", down_s=0.2))
    await watcher.until(
        lambda: {"s1", "h1", "scheduler"} <= {one.source for one in watcher.events[mark:]},
        "all are connected again",
    )
    await completes(origin, 2)

    for action in ("partition", "drop", "delay ends", "restart-scheduler", "restart-broker"):
        said = await watcher.event(FaultInjected, action=action)
        assert said.detail == "by an operator"
    await cluster.close()


async def test_what_cannot_be_done_is_refused_with_the_reason(make: Make) -> None:
    cluster = await make(twins()).up()
    origin = await cluster.origin()
    await completes(origin)
    cut = ConnectionFault(kind="partition")
    for request, code in (
        (control.Disturb(id="s9", how=cut), "no_such_replica"),
        (control.Disturb(id="s1", how=ConnectionFault(kind="drop", share=2.0)), "bad_disturbance"),
        (control.Crash(name="zygot"), "no_such_process"),
        (control.Slow(id="s1", factor=0.5), "bad_factor"),
        (control.Hang(target="replica", id="s1", duration_s=-1.0), "bad_time"),
        (control.Rate(factor=-1.0), "bad_rate"),
        (control.Rate(factor=2.0), "no_traffic"),
    ):
        with pytest.raises(UsageError) as refused:
            await cluster.ask(request)
        assert refused.value.code == code
    # A process that hangs does not answer, and whoever asks does not hang with it.
    await cluster.ask(control.Hang(target="replica", id="s1"))
    with pytest.raises(AnyServeError) as late:
        await cluster.ask(control.Disturb(id="s1", how=cut))
    assert late.value.code == "control_timeout"
    await cluster.ask(control.Resume(target="replica", id="s1"))
    await cluster.ask(control.Disturb(id="s1", how=ConnectionFault(kind="delay", on=False)))
    await cluster.close()


def plan(count: int, gap_ns: int) -> TrafficPlan:
    requests = tuple(
        PlannedRequest(
            n=number,
            at_ns=number * gap_ns,
            stream="chat",
            phase="all",
            capability="decode",
            segments=((number, 8),),
            max_tokens=2,
        )
        for number in range(count)
    )
    phase = PlannedPhase(name="all", start_ns=0, end_ns=count * gap_ns)
    return TrafficPlan(seed=1, requests=requests, phases=(phase,))


async def played(cluster: LiveCluster, wanted: TrafficPlan, **changes: Any) -> None:
    path = Path(cluster.directory) / "plan.json"
    write_plan(path, wanted)
    extra = {NodeRole.PLAYER.value: {"run": "r", "scenario": "s"}}
    await cluster.up(plan_path=str(path), keep=True, extra=extra, **changes)


async def test_the_rate_of_the_traffic_changes_while_it_is_played(make: Make) -> None:
    cluster = make(twins())
    # As planned it would take ten minutes.
    await played(cluster, plan(60, 10 * S))
    watcher = cluster.watcher
    await watcher.event(RequestOffered)
    await cluster.ask(control.Rate(factor=0.0))
    await watcher.event(TrafficRate, factor=0.0)
    count = len(watcher.find(RequestOffered))
    await asyncio.sleep(0.3)
    assert len(watcher.find(RequestOffered)) == count
    await cluster.ask(control.Rate(factor=300.0))
    await watcher.event(RunEnded, reason="completed")
    assert len(watcher.find(RequestOffered)) == 60
    intended = [one.intended_ns for one in watcher.find(RequestOffered)]
    gaps = [later - sooner for sooner, later in itertools.pairwise(intended[1:])]
    assert all(abs(gap - 10 * S / 300) < 1000 for gap in gaps)
    await cluster.close()


async def test_faults_of_a_scenario_act_on_a_live_cluster(make: Make) -> None:
    cluster = make(twins())
    faults = (
        FaultSpec(at_ns=S // 5, action="partition", target="replica s1", duration_ns=S // 2),
        FaultSpec(at_ns=S // 4, action="restart-scheduler", target="scheduler"),
        FaultSpec(at_ns=S // 2, action="restart-broker", target="broker", line=9),
    )
    await played(cluster, plan(20, S // 10), faults=faults)
    await cluster.watcher.event(RunEnded, reason="completed")
    for action in ("partition", "restart-scheduler", "restart-broker", "partition ends"):
        assert (await cluster.watcher.event(FaultInjected, action=action)).detail == ""
    assert len(cluster.watcher.find(FaultInjected)) == len(faults) + 1
    await cluster.close()
