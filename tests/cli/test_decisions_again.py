"""The decisions of a live scheduler, made again by the one that the simulator drives.

`ANYSERVE_REWRITE_GOLDENS=1 pytest tests/cli/test_decisions_again.py` plays `decisions/` on a live
cluster of echo engines, and keeps what its scheduler was told and what it decided.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard
from cli_world import Shell

from anyserve.core.scheduler import Scheduler
from anyserve.core.scheduler.inputs_log import Decision, InputRecord, decide_again, decision_of
from anyserve.core.spec import ClusterSpec
from anyserve.telemetry.log import read_events
from anyserve.workload.policies import load_policy

REWRITE = "ANYSERVE_REWRITE_GOLDENS" in os.environ
SCENARIO = Path(__file__).parent / "decisions" / "scenario.yaml"
RECORD = SCENARIO.with_name("recorded.zst")


class Recorded(msgspec.Struct):
    """What a live scheduler was, was told, and decided."""

    cluster: ClusterSpec
    inputs: list[InputRecord]
    told: list[Decision]

    @classmethod
    def of(cls, run: Path) -> Recorded:
        resolved = json.loads((run / "scenario.resolved.json").read_text())
        lines = (run / "scheduler-inputs.jsonl").read_bytes().splitlines()
        told = [
            decision
            for envelope in read_events(run / "events.jsonl")
            if envelope.source == "scheduler"
            and (decision := decision_of(envelope.event)) is not None
        ]
        return cls(
            msgspec.convert(resolved["cluster"], ClusterSpec),
            [msgspec.json.decode(line, type=InputRecord) for line in lines],
            told,
        )

    def again(self) -> list[Decision]:
        """What a scheduler decides that is made as the simulator makes it (`sim/scheduler.py`)."""
        rules = self.cluster.scheduler
        rng = random.Random(rules.seed)
        policy = load_policy(rules, rng, None)
        scheduler = Scheduler(self.cluster, policy, rng, boot=self.inputs[0].boot)
        return decide_again(scheduler, self.inputs)


@pytest.fixture
def recorded(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The record of a run in which requests are handed up, and a replica dies and comes back."""
    if REWRITE:
        monkeypatch.setenv("ANYSERVE_RECORD_INPUTS", "1")
        shutil.copy(SCENARIO, shell.cwd)
        result = shell.run("up", SCENARIO.name, "--seed", "5")
        assert result.code == 0, result.err
        record = Recorded.of((shell.cwd / "runs" / "latest").resolve())
        RECORD.write_bytes(zstandard.compress(msgspec.json.encode(record), 19))
    return msgspec.json.decode(zstandard.decompress(RECORD.read_bytes()), type=Recorded)


def test_hundreds_of_recorded_decisions_are_made_again(recorded: Recorded) -> None:
    capabilities = {one.name for one in recorded.cluster.capabilities}
    delegations = [one for one in recorded.told if one.target in capabilities]
    routed = [one.id for one in recorded.told if one.target not in capabilities]

    assert len(recorded.told) > 200
    assert len(delegations) > 50
    assert len(routed) > len(set(routed))  # those that the killed replica held
    assert any(b'"gone"' in bytes(one.message) for one in recorded.inputs)
    assert sorted(recorded.again()) == sorted(recorded.told)


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
    live = Recorded.of((shell.cwd / "runs" / "latest").resolve())

    assert len(live.told) == 9
    assert sorted(live.again()) == sorted(live.told)
