"""Whole clusters with traffic, from their start to their end: good, wished, or by force."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from live import LiveCluster, Watcher, delegations, two_rungs

from anyserve.core.events import (
    AttemptStarted,
    RequestOffered,
    RequestOutcome,
    RunEnded,
    RunStarted,
)
from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.runtime.player import write_plan
from anyserve.runtime.supervisor.progress import Ready, TrafficEnded
from anyserve.telemetry.log import ReadReport
from anyserve.workload.traffic import PlannedPhase, PlannedRequest, TrafficPlan

if TYPE_CHECKING:
    from tests.integration.cluster.conftest import Make

pytestmark = pytest.mark.timeout(180)

MS = 1_000_000
KINDS = [
    ("decode", 20, "s1"),
    ("decode", 300, "s1"),
    ("decode.heavy", 20, "s1"),
    ("decode", 20, "scheduler"),
    ("decode.heavy", 20, "scheduler"),
]


def model(max_model_len: int) -> EngineSpec:
    return EngineSpec(
        kind="model", model="smollm2-135m", max_model_len=max_model_len, max_num_seqs=8
    )


def modelled() -> ClusterSpec:
    """Both replicas on the engine that takes a real engine's time."""
    return two_rungs(
        small={"engine": model(256), "concurrency": 8},
        large={"engine": model(2048), "concurrency": 8},
    )


def plan(count: int, every_ms: int, tokens: int) -> TrafficPlan:
    requests = tuple(
        PlannedRequest(
            n=n,
            at_ns=n * every_ms * MS,
            stream="all",
            phase="only",
            capability=capability,
            segments=((n + 1, prompt),),
            max_tokens=tokens,
            entry=entry,
        )
        for n in range(count)
        for capability, prompt, entry in [KINDS[n % len(KINDS)]]
    )
    phases = (PlannedPhase("only", 0, count * every_ms * MS),)
    return TrafficPlan(seed=1, phases=phases, requests=requests)


async def playing(cluster: LiveCluster, traffic: TrafficPlan, **options: Any) -> None:
    """Launch it with this traffic."""
    path = cluster.directory / "plan.json"
    write_plan(path, traffic)
    player = {"run": "r1", "scenario": "x.yaml", **options}
    await cluster.launch(plan_path=str(path), extra={"player": player})


async def some_run(cluster: LiveCluster) -> None:
    """Return once several requests are in engines."""
    await cluster.said(Ready)
    watcher = Watcher(cluster.store.find(cluster.spec.name))
    await watcher.start()
    await watcher.until(lambda: len(watcher.find(AttemptStarted)) > 3, "four attempts")
    await watcher.close()


async def test_plan_is_played_to_its_end_and_the_log_tells_all_of_it(make: Make) -> None:
    cluster = make(modelled())
    traffic = plan(25, 60, 8)
    await playing(cluster, traffic, record_text=True)
    ended = await cluster.exit()
    assert (ended.code, ended.error) == (0, None)
    assert any(isinstance(line, TrafficEnded) for line in cluster.lines)
    await cluster.nothing_left()
    report = ReadReport()
    log = cluster.events(report)
    assert report.problems == ()
    (begun,) = [one.event for one in log if isinstance(one.event, RunStarted)]
    (over,) = [one.event for one in log if isinstance(one.event, RunEnded)]
    assert (begun.run, begun.planned_requests, over.reason) == ("r1", 25, "completed")
    offers = {one.event.id: one.event for one in log if isinstance(one.event, RequestOffered)}
    ends = {one.event.id: one.event for one in log if isinstance(one.event, RequestOutcome)}
    assert len(offers) == len(ends) == 25
    assert {end.outcome for end in ends.values()} == {"completed"}
    for request_id, offer in offers.items():
        heavy = offer.capability == "decode.heavy" or offer.prompt_tokens > 248
        assert ends[request_id].served_by == ("h1" if heavy else "s1")
        count = len(delegations(log, request_id))
        assert count == (1 if heavy and offer.entry == "s1" else 0)
    assert len((cluster.run_dir / "texts.jsonl").read_bytes().splitlines()) == 25
    assert cluster.bugs() == []
    cluster.check_log()


async def test_stop_lets_what_runs_come_to_its_end(make: Make) -> None:
    cluster = make(modelled())
    await playing(cluster, plan(2000, 40, 8))
    await some_run(cluster)
    cluster.process.stop()
    ended = await cluster.exit()
    assert (ended.code, ended.reason) == (143, "SIGTERM")
    await cluster.nothing_left()
    log = cluster.events()
    outcomes = [one.event for one in log if isinstance(one.event, RequestOutcome)]
    assert len(outcomes) == len([one for one in log if isinstance(one.event, RequestOffered)])
    assert {one.outcome for one in outcomes} == {"completed"}
    (over,) = [one.event for one in log if isinstance(one.event, RunEnded)]
    assert over.reason == "stopped: SIGTERM"
    assert cluster.bugs() == []
    cluster.check_log()


async def test_second_stop_waits_for_nothing_and_leaves_nothing(make: Make) -> None:
    cluster = make(modelled())
    await playing(cluster, plan(2000, 40, 200))
    await some_run(cluster)
    for process in cluster.processes():
        if "anyserve.runtime.scheduler" in process.cmdline():
            process.suspend()
    cluster.process.stop()
    cluster.process.stop()
    assert (await cluster.exit()).code == 143
    await cluster.nothing_left()


async def test_supervisor_killed_under_load_leaves_nothing(make: Make) -> None:
    cluster = make(modelled())
    await playing(cluster, plan(2000, 40, 8))
    await some_run(cluster)
    record = cluster.store.find(cluster.spec.name)
    assert len(cluster.processes()) >= 9  # the supervisor, its broker, six nodes, two workers
    os.kill(cluster.process.pid, signal.SIGKILL)
    ended = await cluster.exit()
    assert ended.error is not None
    assert ended.error.code == "supervisor_gone"
    await cluster.nothing_left()
    assert not psutil.pid_exists(record.supervisor.pid)


async def test_two_clusters_beside_each_other_do_not_touch(make: Make) -> None:
    first, second = make(modelled()), make(modelled())
    for cluster in (first, second):
        await playing(cluster, plan(10, 40, 8))
    for cluster in (first, second):
        ended = await cluster.exit()
        assert ended.code == 0
        await cluster.nothing_left()
        outcomes = [one for one in cluster.events() if isinstance(one.event, RequestOutcome)]
        assert len(outcomes) == 10
        cluster.check_log()
    assert asyncio.all_tasks() == {asyncio.current_task()}
