"""What the control plane costs: CPU per request over all processes, engines that compute nothing.

    python benchmarks/control_plane.py [--requests N]

The echo engine steps every 5 ms and gives each running request one token a step, 16 tokens a
request. 64 (then 1) requests are always open. CPU is user and system time of broker, scheduler,
replica, worker, zygote, supervisor, recorder and this process, the origin.
Writes benchmarks/results/control_plane.json.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping

import uvloop
from bench import BenchCluster, cluster, report

from anyserve.core.messages import Offer
from anyserve.core.spec import CapabilitySpec, ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.runtime.engines.base import Sampling
from anyserve.runtime.origin import Draft

TOKENS = 16
SAMPLING = Sampling(max_tokens=TOKENS, ignore_eos=True)


def spec(concurrency: int) -> ClusterSpec:
    engine = EngineSpec(kind="echo", step_ms=5.0, max_num_seqs=concurrency)
    replica = ReplicaSpec(
        id="r1", offers=(Offer(capability="decode"),), engine=engine, concurrency=concurrency
    )
    return ClusterSpec(
        name="bench-control", capabilities=(CapabilitySpec(name="decode"),), replicas=(replica,)
    )


async def play(bench: BenchCluster, requests: int, concurrency: int) -> list[float]:
    """Keep `concurrency` requests open until `requests` are done; end-to-end times in ms."""
    left = requests
    times_ms: list[float] = []

    async def one_after_the_other() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.monotonic()
            draft = Draft(
                capability="decode",
                prompt_ids=[1, 2, 3, 4] * 8,
                max_tokens=TOKENS,
                sampling=SAMPLING,
            )
            outcome = await bench.client.offer(draft).outcome
            assert outcome.n_tokens == TOKENS, outcome
            times_ms.append((time.monotonic() - began) * 1000)

    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    return times_ms


async def measure(requests: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    async with cluster(spec(64)) as bench:
        await play(bench, 256, 64)
        for concurrency, count in ((64, requests), (1, max(20, requests // 40))):
            before, began = bench.cpu_s(), time.monotonic()
            times_ms = await play(bench, count, concurrency)
            spent = _difference(before, bench.cpu_s())
            rows.append(
                {
                    "concurrency": concurrency,
                    "requests/s": count / (time.monotonic() - began),
                    "p50 ms": statistics.median(times_ms),
                    **{f"{name} ms": 1000 * cpu / count for name, cpu in sorted(spent.items())},
                    "all ms": 1000 * sum(spent.values()) / count,
                }
            )
    return rows


def _difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before.get(name, 0.0) for name in after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    rows = uvloop.run(measure(parser.parse_args().requests))
    report("control_plane", "CPU per request of 16 tokens, milliseconds", rows, target_all_ms=1.5)


if __name__ == "__main__":
    main()
