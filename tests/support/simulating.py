"""Small scenarios, simulated: what the tests of the simulator start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from anyserve.core.events import Envelope
from anyserve.sim.recorder import Enveloped
from anyserve.sim.simulation import Simulation
from anyserve.telemetry.invariants import Rules, Violation, check_invariants
from anyserve.workload.compile import Compiled, compile_scenario
from anyserve.workload.load import parse_scenario

_ENCODER = msgspec.json.Encoder()

PAIR: dict[str, Any] = {
    "version": 1,
    "name": "pair",
    "cluster": {
        "capabilities": {
            "decode": {"upgrade": "decode.heavy", "mid_stream": "resume"},
            "decode.heavy": {},
        },
        "replicas": {
            "d": {
                "count": 2,
                "capabilities": ["decode"],
                "concurrency": 4,
                "engine": {"kind": "model", "model": "smollm2-135m", "max_model_len": 512},
            },
            "h": {
                "capabilities": ["decode.heavy"],
                "concurrency": 4,
                "engine": {"kind": "model", "model": "smollm2-135m", "max_model_len": 2048},
            },
        },
    },
    "traffic": {
        "phases": [{"name": "all", "duration": "20s"}],
        "streams": {
            "chat": {
                "capability": "decode",
                "rate": 3,
                "arrivals": "poisson",
                "prompt_tokens": {"uniform": {"min": 8, "max": 96}},
                "output_tokens": {"uniform": {"min": 1, "max": 40}},
            },
            "wrong-door": {
                "capability": "decode.heavy",
                "entry": "d",
                "rate": 0.5,
                "prompt_tokens": 32,
                "output_tokens": 16,
            },
        },
    },
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` put over it, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def compiled(scenario: Mapping[str, Any], *overrides: str, seed: int = 1) -> Compiled:
    """A scenario given as data, ready to run."""
    text = yaml.safe_dump(dict(scenario), sort_keys=False)
    return compile_scenario(parse_scenario(text, overrides=overrides), seed=seed)


def simulate(what: Compiled, *, exact: bool = False, **options: Any) -> list[Envelope]:
    """All events of a run."""
    events: list[Envelope] = []
    Simulation(what, Enveloped(events.append), exact=exact, **options).run()
    return events


def log_of(events: list[Envelope]) -> bytes:
    """The event log as its file holds it."""
    return _ENCODER.encode_lines(events)


def violations(what: Compiled, events: list[Envelope]) -> list[Violation]:
    """What the invariants' check finds in a run."""
    cluster = what.cluster
    rules = Rules(
        delegation_limit=cluster.delegation.limit,
        ladder=cluster.ladder.upgrades,
        queue_limits={one.name: one.queue_limit for one in cluster.capabilities},
    )
    return check_invariants(events, rules)
