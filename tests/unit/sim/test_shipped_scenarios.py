"""The scenarios that ship, in virtual time: those of live clusters, and those for simulation."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulating import simulate, violations

from anyserve.core.events import RequestOffered, RequestOutcome
from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import load_scenario

ROOT = Path(__file__).parents[3] / "scenarios"
OFF_LINE = [*sorted(ROOT.glob("sim/*.yaml")), ROOT / "burst.yaml", ROOT / "faults.yaml"]
CUT_NS = {"fleet": 3_000_000_000, "mooncake": 20_000_000_000, "azure": 30_000_000_000}


@pytest.mark.parametrize("path", OFF_LINE, ids=lambda path: path.stem)
def test_it_plays_and_every_request_is_completed(path: Path) -> None:
    what = compile_scenario(load_scenario(path), seed=5, duration_ns=CUT_NS.get(path.stem))

    log = simulate(what)
    events = [one.event for one in log]

    outcomes = [one.outcome for one in events if isinstance(one, RequestOutcome)]
    offered = sum(isinstance(one, RequestOffered) for one in events)
    assert offered > 10
    assert outcomes == ["completed"] * offered
    assert violations(what, log) == []
