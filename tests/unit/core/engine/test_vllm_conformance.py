"""Every decision of the engine model is vLLM's: against a record, and against vLLM itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import zstandard
from engine_traces import OurScheduler, Recorded, difference

from anyserve.runtime.engines.detect import detect

ROOT = Path(__file__).parents[4]
MODELLED = ("0.28.", "0.29.", "0.30.", "0.31.", "0.32.")
"""What older and newer ones do otherwise stands in docs/engine.md."""
RECORD = Path(__file__).with_name("vllm_decisions.bin")


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    packed = zstandard.decompress(RECORD.read_bytes())
    return msgspec.msgpack.decode(packed, type=Recorded)


@pytest.mark.parametrize("runs", [False, True], ids=["step by step", "in runs"])
def test_the_decisions_are_those_that_vllm_was_seen_to_make(
    recorded: Recorded, *, runs: bool
) -> None:
    assert len(recorded.cases) >= 300
    assert sum(sum(len(step.preempted) for step in one.decisions) for one in recorded.cases) > 100
    assert sum(one.prefix[1] for one in recorded.cases) > 1000
    for case in recorded.cases:
        ours = OurScheduler(case.trace)
        assert not difference(case.trace, ours.play(runs=runs), case.decisions)
        assert ours.prefix == case.prefix


@pytest.mark.skipif(
    not detect().version.startswith(MODELLED), reason="needs a vLLM that decides as the model does"
)
@pytest.mark.timeout(300)
def test_the_decisions_are_those_of_the_installed_vllm() -> None:
    command = [sys.executable, "benchmarks/conformance.py", "--traces", "200", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["traces"], found["different"], found["counted_otherwise"]) == (200, 0, 0)
    assert found["preemptions"] > 50
