"""How many requests a second the simulator plays, on one core, and what they cost where.

    python benchmarks/sim_speed.py [--requests N] [--large] [--fleet]

Workload W2: 16 replicas, 160 requests a second, Poisson, 512 tokens in and 128 out, dynamic routing
(least-loaded), full protocol: every message of every request goes through core's own scheduler,
replica and origin. `events`: all of them are made and counted; `recorded`: also written to a log,
compressed; `sampled`: decisions are explained for 1 % of the requests only. `exact`: every engine
step is an entry of its own. W3: 1,000 replicas, 10,000 requests a second. CPU time of this process.
`handle`: calls of the three machines' `handle` per request, the unit in which core's cost is
counted. Writes benchmarks/results/sim_speed.json.
"""

from __future__ import annotations

import argparse
import gc
import resource
import tempfile
import time
from pathlib import Path

import yaml
from bench import report

from anyserve.core.events import Envelope
from anyserve.sim.recorder import Record, enveloped
from anyserve.sim.simulation import Simulation
from anyserve.telemetry.log import EventLogWriter
from anyserve.workload.compile import Compiled, compile_scenario
from anyserve.workload.load import parse_scenario

PER_REPLICA = 10
"""Requests per second and replica."""
PROFILE = "llama-3.1-8b-h100-sxm"


def scenario(replicas: int, requests: int, policy: str) -> Compiled:
    """So many replicas under so many requests; the same load on each, however many there are."""
    rate = PER_REPLICA * replicas
    data = {
        "version": 1,
        "name": "speed",
        "cluster": {
            "capabilities": {"decode": {"queue_limit": 1_000_000}},
            "scheduler": {"policy": policy},
            "replicas": {
                "r": {
                    "count": replicas,
                    "capabilities": ["decode"],
                    "concurrency": 64,
                    "engine": engine(),
                }
            },
        },
        "traffic": {
            "phases": [{"name": "all", "duration": f"{requests / rate:.3f}s"}],
            "streams": {
                "chat": {
                    "capability": "decode",
                    "rate": rate,
                    "arrivals": "poisson",
                    "prompt_tokens": 512,
                    "output_tokens": 128,
                }
            },
        },
    }
    return compile_scenario(parse_scenario(yaml.safe_dump(data)), seed=1)


def engine() -> dict[str, object]:
    return {"kind": "model", "profile": PROFILE, "max_model_len": 4096}


def play(what: Compiled, record: Record, **options: object) -> tuple[float, int]:
    """CPU seconds of a run, and its entries on the agenda."""
    simulation = Simulation(what, record, **options)  # type: ignore[arg-type]
    gc.collect()
    gc.disable()
    began = time.process_time()
    simulation.run()
    spent = time.process_time() - began
    gc.enable()
    return spent, simulation.entries


def measure(
    name: str, replicas: int, requests: int, policy: str = "least-loaded"
) -> dict[str, object]:
    what = scenario(replicas, requests, policy)
    count = 0

    def record(*_: object) -> None:
        nonlocal count
        count += 1

    sample = 0.01 if "sampled" in name else 1.0
    exact = "exact" in name
    if "recorded" in name:
        with (
            tempfile.TemporaryDirectory() as folder,
            EventLogWriter(Path(folder) / "events.jsonl.zst") as log,
        ):

            def write(envelope: Envelope) -> None:
                nonlocal count
                count += 1
                log.write(envelope)

            spent, entries = play(what, enveloped(write), sample=sample, exact=exact)
    else:
        spent, entries = play(what, record, sample=sample, exact=exact)
    done = len(what.plan.requests)
    return {
        "workload": name,
        "replicas": replicas,
        "policy": policy,
        "requests": done,
        "cpu s": spent,
        "requests/s": done / spent,
        "us/request": 1e6 * spent / done,
        "entries/request": entries / done,
        "events/request": count / done,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument(
        "--large", action="store_true", help="also 1,000 replicas, 100,000 requests"
    )
    parser.add_argument("--fleet", action="store_true", help="also 4,000 replicas")
    options = parser.parse_args()
    count = options.requests
    rows = [
        measure("W2 sampled", 16, count),
        measure("W2 events", 16, count),
        measure("W2 recorded", 16, count),
        measure("W2 exact", 16, count // 4),
        measure("W2 sampled", 16, count, "power-of-two"),
        measure("W2 sampled, 160 replicas", 160, count),
        measure("W3 sampled, short", 1000, count),
    ]
    if options.large:
        rows.append(measure("W3 sampled", 1000, 100_000))
    if options.fleet:
        rows.append(measure("W3 sampled, fleet", 4000, 40_000))
    report("sim_speed", "simulated requests per second, one core", rows)


if __name__ == "__main__":
    main()
