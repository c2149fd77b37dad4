"""Whether a screen delays the cluster that it shows: time to first token with and without one.

    python benchmarks/tui_interference.py [--windows N] [--seconds S] [--rate R] [--replicas K]

Echo engines under steady open-loop traffic, in one run. Windows with `anyserve tui --attach` on a
pseudo-terminal of 160x50, painting at 4 Hz, alternate with windows without. What happens while the
screen starts (Python imports Textual) is a row of its own. The noise is the same ratio between
windows without a screen. Writes benchmarks/results/tui_interference.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import psutil
import uvloop
from bench import BenchCluster, cluster, report

from anyserve.core.messages import Offer
from anyserve.core.spec import CapabilitySpec, ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.runtime.engines.base import Sampling
from anyserve.runtime.origin import Draft

NAME = "bench-tui"
COLUMNS, ROWS = 160, 50
STARTING_S = 3.0
WITH, WITHOUT, STARTING = "with a screen", "without", "while it starts"


def spec(replicas: int) -> ClusterSpec:
    engine = EngineSpec(kind="echo", step_ms=10.0)
    return ClusterSpec(
        name=NAME,
        capabilities=(CapabilitySpec(name="decode"),),
        replicas=tuple(
            ReplicaSpec(
                id=f"r{number}",
                offers=(Offer(capability="decode"),),
                engine=engine,
                concurrency=8,
            )
            for number in range(replicas)
        ),
    )


class Load:
    """Open-loop traffic: each request is due at its time, and its first token is timed from it."""

    def __init__(self, bench: BenchCluster, rate: float) -> None:
        self.kind = WITHOUT
        self.window = 0
        self.ttft_ms: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._bench = bench
        self._rate = rate
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        began = time.perf_counter()
        number = 0
        while True:
            due = began + number / self._rate
            number += 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(self._one(due, (self.kind, self.window)))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _one(self, due: float, where: tuple[str, int]) -> None:
        sampling = Sampling(max_tokens=16, ignore_eos=True)
        draft = Draft(
            capability="decode", prompt_ids=list(range(1, 33)), max_tokens=16, sampling=sampling
        )
        handle = self._bench.client.offer(draft, streamed=True)
        async for _ in handle:
            self.ttft_ms[where].append((time.perf_counter() - due) * 1000)
            break
        await handle.outcome


@asynccontextmanager
async def screen(cpu_s: list[float]) -> AsyncIterator[None]:
    """`anyserve tui` on a terminal that somebody looks at; its CPU seconds go to `cpu_s`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [sys.executable, "-m", "anyserve.cli", "tui", "--attach", "--cluster", NAME],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    looking = threading.Thread(target=lambda: [None for _ in shown(ours)], daemon=True)
    looking.start()
    try:
        yield
        times = psutil.Process(process.pid).cpu_times()
        cpu_s.append(times.user + times.system)
    finally:
        process.terminate()
        process.wait(10)
        looking.join(5)
        os.close(ours)


def shown(fd: int) -> Iterator[bytes]:
    """What a terminal would show; reading it is what keeps the screen going."""
    with contextlib.suppress(OSError):
        while data := os.read(fd, 65536):
            yield data


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    cpu_s: list[float] = []
    async with cluster(spec(arguments.replicas)) as bench:
        load = Load(bench, arguments.rate)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(2.0)
        load.ttft_ms.clear()
        for window in range(arguments.windows):
            load.window, load.kind = window, WITHOUT
            await asyncio.sleep(arguments.seconds)
            load.kind = STARTING
            async with screen(cpu_s):
                await asyncio.sleep(STARTING_S)
                load.kind = WITH
                await asyncio.sleep(arguments.seconds)
                load.kind = "closing"
            await asyncio.sleep(1.0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return summary(load, cpu_s, arguments)


def summary(load: Load, cpu_s: list[float], arguments: argparse.Namespace) -> dict[str, Any]:
    pooled: dict[str, list[float]] = defaultdict(list)
    medians: dict[str, list[float]] = defaultdict(list)
    for (kind, _), values in sorted(load.ttft_ms.items()):
        pooled[kind] += values
        medians[kind].append(statistics.median(values))
    without = sorted(medians[WITHOUT])
    shown_s = STARTING_S + arguments.seconds
    return {
        "rows": [
            {
                "when": kind,
                "requests": len(pooled[kind]),
                "ttft_p50_ms": round(float(np.percentile(pooled[kind], 50)), 2),
                "ttft_p95_ms": round(float(np.percentile(pooled[kind], 95)), 2),
                "ttft_p99_ms": round(float(np.percentile(pooled[kind], 99)), 2),
            }
            for kind in (WITHOUT, WITH, STARTING)
        ],
        "ratio_p50": round(
            statistics.median(medians[WITH]) / statistics.median(medians[WITHOUT]), 3
        ),
        "noise_p50": round(without[-1] / without[0], 3),
        "screen_cpu_share": round(statistics.mean(cpu_s) / shown_s, 3),
        "windows": arguments.windows,
        "seconds": arguments.seconds,
        "rate_per_s": arguments.rate,
        "replicas": arguments.replicas,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--replicas", type=int, default=4)
    found = uvloop.run(measure(parser.parse_args()))
    rows = found.pop("rows")
    report("tui_interference", "time to first token beside a screen", rows, **found)
    print({name: found[name] for name in ("ratio_p50", "noise_p50", "screen_cpu_share")})


if __name__ == "__main__":
    main()
