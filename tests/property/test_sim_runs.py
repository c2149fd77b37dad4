"""Random scenarios in virtual time: what must hold of every run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from simulating import PAIR, compiled, log_of, merged, simulate, violations

from anyserve.core.events import RequestOffered, RequestOutcome, RunEnded
from anyserve.telemetry.invariants import Invariant, Violation

REPLICAS = ("d-1", "d-2", "h")
replica = st.sampled_from(REPLICAS)
process = st.one_of(
    st.fixed_dictionaries({"replica": replica}), st.fixed_dictionaries({"worker": replica})
)
share = st.sampled_from([0.1, 0.5])
actions = st.one_of(
    st.fixed_dictionaries({"kill": process}),
    st.fixed_dictionaries({"hang": process}),
    st.fixed_dictionaries(
        {"slow": st.fixed_dictionaries({"replica": replica, "factor": st.sampled_from([1.5, 7])})}
    ),
    st.fixed_dictionaries({"drain": st.fixed_dictionaries({"replica": replica})}),
    st.fixed_dictionaries({"partition": st.fixed_dictionaries({"replica": replica})}),
    st.fixed_dictionaries({"drop": st.fixed_dictionaries({"replica": replica, "share": share})}),
    st.fixed_dictionaries(
        {"duplicate": st.fixed_dictionaries({"replica": replica, "share": share})}
    ),
    st.fixed_dictionaries(
        {"delay": st.fixed_dictionaries({"replica": replica, "by": st.just("40ms")})}
    ),
    st.just({"restart-broker": {"down": "300ms"}}),
    st.just({"restart-scheduler": {}}),
)
ENDLESS = {"kill", "restart-broker", "restart-scheduler"}


@st.composite
def faults(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for _ in range(draw(st.integers(0, 3))):
        action = draw(actions)
        fault = {"at": f"{draw(st.integers(0, 7_999))}ms", **action}
        if not ENDLESS & set(action) and draw(st.booleans()):
            fault["for"] = f"{draw(st.integers(1, 12_000))}ms"
        found.append(fault)
    return found


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    rate = draw(st.sampled_from([1, 4, 12]))
    engine = {
        "kv_cache_gib": draw(st.sampled_from([0.05, 1.0])),
        "max_num_batched_tokens": draw(st.sampled_from([64, 256])),
        "options": {"async_scheduling": draw(st.booleans())},
    }
    stream = {
        "rate": rate,
        "entry": draw(st.sampled_from(["scheduler", "d", "any"])),
        "deadline": draw(st.sampled_from([None, "900ms", "6s"])),
        "prefix": draw(st.sampled_from([None, {"tokens": 8, "groups": 2}])),
    }
    stream = {key: value for key, value in stream.items() if value is not None}
    network = {
        "latency": draw(st.sampled_from(["100us", "3ms"])),
        "jitter": draw(st.sampled_from(["0s", "2ms"])),
        "drop": draw(st.sampled_from([0.0, 0.0, 0.02])),
        "duplicate": draw(st.sampled_from([0.0, 0.02])),
        "reorder": draw(st.booleans()),
    }
    changes: dict[str, Any] = {
        "cluster": {
            "scheduler": {"policy": draw(st.sampled_from(["least-loaded", "power-of-two"]))},
            "delegation": {"overload": draw(st.booleans())},
            "capabilities": {"decode": {"target_wait": "300ms", "queue_limit": 6}},
            "replicas": {"d": {"engine": engine}, "h": {"engine": engine}},
            "request_lifetime": "30s",
        },
        "traffic": {
            "phases": [{"name": "all", "duration": "8s"}],
            "streams": {"chat": stream},
        },
        "faults": draw(faults()),
        "sim": {
            "network": network,
            "handover": draw(st.sampled_from(["0s", "1ms", "37ms"])),
            "scheduler_cost": draw(st.sampled_from(["0s", "200us"])),
            "cores": draw(st.sampled_from([0, 2])),
            "step_jitter": draw(st.booleans()),
        },
    }
    return merged(PAIR, changes)


@given(scenario=scenarios(), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_stretches_and_single_steps_give_the_same_bytes(
    scenario: dict[str, Any], seed: int
) -> None:
    what = compiled(scenario, seed=seed)

    fast, exact = simulate(what), simulate(what, exact=True)

    assert log_of(fast) == log_of(exact)


@given(scenario=scenarios(), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_every_request_has_one_outcome_and_the_invariants_hold(
    scenario: dict[str, Any], seed: int
) -> None:
    what = compiled(scenario, seed=seed)

    events = simulate(what)

    said = [one.event for one in events]
    offered = [one.id for one in said if isinstance(one, RequestOffered)]
    outcomes = [one.id for one in said if isinstance(one, RequestOutcome)]
    assert len(offered) == len(what.plan.requests)
    assert sorted(outcomes) == sorted(offered)
    assert [one.reason for one in said if isinstance(one, RunEnded)] == ["completed"]
    assert all(before.t <= after.t for before, after in pairwise(events))
    # What a trace makes of attempts that overlapped is its best guess: see docs/simulator.md.
    found = [one for one in violations(what, events) if not overlapping(scenario, one)]
    assert found == []


def overlapping(scenario: dict[str, Any], violation: Violation) -> bool:
    """Whether two attempts of a request may have run at once, so that its times have no one line.

    Only faults and a bad network bring that about.
    """
    network = scenario["sim"]["network"]
    calm = not scenario["faults"] and not network["drop"]
    return violation.invariant is Invariant.TIME_ADDS_UP and not calm
