"""The decisions of a live scheduler, made again by the one that the simulator drives."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cli_world import Shell

from anyserve.core.scheduler import Scheduler
from anyserve.core.scheduler.inputs_log import InputRecord, decide_again, decision_of
from anyserve.core.spec import ClusterSpec
from anyserve.telemetry.log import read_events
from anyserve.workload.policies import load_policy


def test_the_decisions_of_a_live_run_are_made_again(
    shell: Shell,
    scenario: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANYSERVE_RECORD_INPUTS", "1")
    scenario()
    changes = ("cluster.scheduler.policy=power-of-two", "traffic.streams.chat.entry=scheduler")
    result = shell.run("up", "tiny.yaml", "--seed", "3", "--set", changes[0], "--set", changes[1])
    assert result.code == 0, result.err
    run = (shell.cwd / "runs" / "latest").resolve()
    resolved = json.loads((run / "scenario.resolved.json").read_text())
    cluster = msgspec.convert(resolved["cluster"], ClusterSpec)
    lines = (run / "scheduler-inputs.jsonl").read_bytes().splitlines()
    records = [msgspec.json.decode(line, type=InputRecord) for line in lines]

    # As the simulator makes it: see `sim/scheduler.py`.
    rng = random.Random(cluster.scheduler.seed)
    scheduler = Scheduler(
        cluster, load_policy(cluster.scheduler, rng, None), rng, boot=records[0].boot
    )
    again = decide_again(scheduler, records)

    told = [
        decision
        for envelope in read_events(run / "events.jsonl")
        if envelope.source == "scheduler" and (decision := decision_of(envelope.event)) is not None
    ]
    assert len(told) == 9
    assert sorted(again) == sorted(told)
