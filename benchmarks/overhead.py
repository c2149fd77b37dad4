"""What AnyServe adds to vLLM: the same requests through the cluster and straight into the engine.

    python benchmarks/overhead.py [--rounds N]

Both sides run the same engine adapter with the same settings and stay loaded; they are measured in
turns, so that what else the machine does falls on both. `direct` is the engine's step loop in a
process of its own with nothing around it. Prompts of 32 tokens, 16 output tokens, greedy.
Writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import uvloop
from bench import BenchCluster, cluster, report

from anyserve.core.messages import Limits, Offer
from anyserve.core.spec import CapabilitySpec, ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.runtime.engines.base import EngineRequest, Sampling
from anyserve.runtime.engines.config import engine_config
from anyserve.runtime.engines.create import create_engine
from anyserve.runtime.models.resolve import resolve_model
from anyserve.runtime.origin import Draft

MODEL = "smollm2-135m"
PROMPT, OUTPUT = 32, 16
ENGINE = EngineSpec(kind="vllm", model=MODEL, max_model_len=256, max_num_seqs=32, kv_cache_gib=0.5)
SAMPLING = Sampling(max_tokens=OUTPUT, temperature=0.0, ignore_eos=True)
CONCURRENCIES = (1, 8, 32)

Times = list[tuple[float, float]]
"""Time to first token and end to end of each request, in seconds."""


def prompt(number: int) -> list[int]:
    return [1000 + (number * 7919 + index * 104729) % 40000 for index in range(PROMPT)]


def serve_direct(pipe: Connection) -> None:
    """The child: load the engine, then play what is asked for."""
    os.environ.update(
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1"
    )
    engine = create_engine(engine_config(ENGINE, resolve_model(MODEL)))
    engine.start(lambda _stage, _fraction: None)
    pipe.send("ready")
    number = 0
    while (asked := pipe.recv()) is not None:
        concurrency, count = asked
        began: dict[str, float] = {}
        first: dict[str, float] = {}
        times: Times = []
        left = count
        start = time.perf_counter()
        while len(times) < count:
            while left and len(began) - len(times) < concurrency:
                left -= 1
                number += 1
                key = str(number)
                began[key] = time.perf_counter()
                engine.submit(EngineRequest(key=key, prompt_ids=prompt(number), sampling=SAMPLING))
            for delta in engine.step().deltas:
                now = time.perf_counter()
                if delta.token_ids:
                    first.setdefault(delta.key, now)
                if delta.done:
                    times.append((first[delta.key] - began[delta.key], now - began[delta.key]))
        pipe.send((time.perf_counter() - start, times))


async def play_cluster(
    bench: BenchCluster, concurrency: int, count: int, first: int
) -> tuple[float, Times]:
    numbers = iter(range(first, first + count))
    times: Times = []

    async def one_after_the_other() -> None:
        for number in numbers:
            began = time.perf_counter()
            draft = Draft(
                capability="decode",
                prompt_ids=prompt(number),
                max_tokens=OUTPUT,
                sampling=SAMPLING,
            )
            handle = bench.client.offer(draft, streamed=True)
            seen: float | None = None
            async for _ in handle:
                seen = seen or time.perf_counter()
            assert seen is not None, await handle.outcome
            times.append((seen - began, time.perf_counter() - began))

    start = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    return time.perf_counter() - start, times


def spec() -> ClusterSpec:
    offer = Offer(capability="decode", limits=Limits(max_tokens=ENGINE.max_model_len))
    return ClusterSpec(
        name="bench-overhead",
        capabilities=(CapabilitySpec(name="decode"),),
        replicas=(ReplicaSpec(id="r1", offers=(offer,), engine=ENGINE, concurrency=32),),
    )


async def measure(rounds: int) -> list[dict[str, object]]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve_direct, args=(theirs,))
    child.start()
    assert await asyncio.to_thread(ours.recv) == "ready"
    rows: list[dict[str, object]] = []
    async with cluster(spec()) as bench:
        number = 1_000_000
        for concurrency in CONCURRENCIES:
            count = 8 if concurrency == 1 else 2 * concurrency
            sides: dict[str, list[tuple[float, Times]]] = {"direct": [], "cluster": []}
            for turn in range(rounds + 1):
                ours.send((concurrency, count))
                direct = await asyncio.to_thread(ours.recv)
                through = await play_cluster(bench, concurrency, count, number)
                number += count
                if turn:  # the first round warms both up
                    sides["direct"].append(direct)
                    sides["cluster"].append(through)
            rows.append(_row(concurrency, count, sides["direct"], sides["cluster"]))
    ours.send(None)
    await asyncio.to_thread(child.join, 20)
    return rows


def _row(
    concurrency: int,
    count: int,
    direct: Sequence[tuple[float, Times]],
    through: Sequence[tuple[float, Times]],
) -> dict[str, object]:
    rates = [count * OUTPUT / took for took, _ in direct]
    ours = [count * OUTPUT / took for took, _ in through]
    first = statistics.median(one for _, times in direct for one, _ in times)
    our_first = statistics.median(one for _, times in through for one, _ in times)
    return {
        "concurrency": concurrency,
        "direct tok/s": statistics.median(rates),
        "cluster tok/s": statistics.median(ours),
        "ratio": statistics.median(b / a for a, b in zip(rates, ours, strict=True)),
        "direct ttft ms": 1000 * first,
        "cluster ttft ms": 1000 * our_first,
        "added ttft ms": 1000 * (our_first - first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rows = uvloop.run(measure(parser.parse_args().rounds))
    report("overhead", "through AnyServe against vLLM's engine alone", rows, target_ratio=0.95)


if __name__ == "__main__":
    main()
