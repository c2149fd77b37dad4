"""An hour of small traffic: does anything grow, leak, get lost or come twice?

    python benchmarks/soak.py [--minutes M] [--rate R] [--every S]

A cluster of two echo replicas on the embedded broker, everything on. Requests come as a Poisson
process: half of them to the scheduler, a quarter to a replica that serves them, a quarter to one
that has to delegate them; one in fifty is cancelled on its way, one in fifty has a deadline that
it cannot keep. Every answer is compared with what the engine must have said. Beside it two probes
send numbered messages through the broker, at QoS 0 and QoS 1, and count what is lost or repeated.
Every S seconds: memory, open files and threads of every process, and the size of the broker's
store. At the end the recorded event log must be whole and break no invariant.
Writes benchmarks/results/soak.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop
from bench import BenchCluster, cluster, report

from anyserve.core.messages import Offer
from anyserve.core.spec import (
    CapabilitySpec,
    ClusterSpec,
    DelegationSpec,
    EngineSpec,
    LadderSpec,
    ReplicaSpec,
)
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.engines.base import Sampling
from anyserve.runtime.engines.deterministic import echoed
from anyserve.runtime.origin import Draft
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.invariants import Rules, check_invariants
from anyserve.telemetry.log import ReadReport, read_events

TOKENS = 16
LOW, HIGH = "decode", "decode.heavy"
WARM_UP_SHARE = 0.1
"""Of the samples, before memory is expected to be flat."""
PROBES_PER_S = 20
MB = 2**20


def spec() -> ClusterSpec:
    engine = EngineSpec(kind="echo", step_ms=5.0, max_num_seqs=16)
    return ClusterSpec(
        name="bench-soak",
        capabilities=(CapabilitySpec(name=LOW), CapabilitySpec(name=HIGH)),
        replicas=(
            ReplicaSpec(id="s1", offers=(Offer(capability=LOW),), engine=engine),
            ReplicaSpec(id="h1", offers=(Offer(capability=HIGH),), engine=engine),
        ),
        ladder=LadderSpec(upgrades={LOW: HIGH}),
        delegation=DelegationSpec(limit=1),
    )


@dataclass
class Traffic:
    """Offers requests at their times and judges what comes back."""

    bench: BenchCluster
    rng: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    open: set[asyncio.Task[None]] = field(default_factory=set)

    async def play(self, rate: float, seconds: float) -> None:
        due = start = time.monotonic()
        while (due := due + self.rng.expovariate(rate)) < start + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._one())
            self.open.add(task)
            task.add_done_callback(self.open.discard)
        await asyncio.gather(*self.open)

    async def _one(self) -> None:
        rng = self.rng
        prompt = [rng.randrange(50_000) for _ in range(rng.randint(4, 64))]
        capability, entry = rng.choice(
            [(LOW, "scheduler"), (HIGH, "scheduler"), (LOW, "s1"), (HIGH, "s1")]
        )
        fate = rng.random()
        draft = Draft(
            capability=capability,
            entry=entry,
            prompt_ids=prompt,
            max_tokens=TOKENS,
            sampling=Sampling(max_tokens=TOKENS, ignore_eos=True),
            deadline_ms=20 if fate < 0.02 else None,
        )
        handle = self.bench.client.offer(draft, streamed=True)
        if 0.02 <= fate < 0.04:
            await asyncio.sleep(0.03)
            self.bench.client.cancel(handle.id)
        tokens: list[int] = []
        async for frame in handle:
            if frame.start != len(tokens):
                self.wrong.append(f"{handle.id}: token {len(tokens)} was due, {frame.start} came")
            tokens += frame.tokens
        outcome = await handle.outcome
        self.outcomes[outcome.kind.value] += 1
        whole = outcome.kind.value == "completed"
        if tokens != echoed(prompt, 0, TOKENS if whole else len(tokens)):
            self.wrong.append(f"{handle.id}: {outcome.kind.value} with other tokens than were made")


class Probe:
    """A publisher and a subscriber of their own, and numbered messages between them."""

    def __init__(self, bench: BenchCluster, qos: int) -> None:
        record = bench.record
        logins = record.role_credentials()
        self.qos = qos
        self.sent = 0
        self._seen = GapCounter()
        self._repeated = 0
        self.inversions = 0
        self._last = -1
        self._topic = f"{record.prefix}/replica/soak-{qos}/entry"
        self._from = MqttBus(
            record.broker,
            logins.of(Role.ORIGIN),
            client_id=f"soak-from-{qos}",
            on_message=self._hear,
        )
        self._to = MqttBus(
            record.broker,
            logins.of(Role.REPLICA),
            client_id=f"soak-to-{qos}",
            on_message=self._hear,
        )

    def _hear(self, _topic: str, payload: bytes, _retain: bool) -> None:
        number = int(payload.partition(b" ")[0])
        self.inversions += number < self._last
        self._last = number
        self._repeated += not self._seen.add("", 0, number)

    async def run(self, seconds: float) -> None:
        await self._from.start()
        await self._to.start()
        await self._to.subscribe(self._topic, self.qos)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._from.publish(self._topic, b"%d %s" % (self.sent, b"x" * 300), qos=self.qos)
            self.sent += 1
            await asyncio.sleep(1 / PROBES_PER_S)
        await asyncio.sleep(2)
        await self._from.close()
        await self._to.close()

    def row(self) -> dict[str, object]:
        self._seen.expect("", 0, self.sent)
        return {
            "probe": f"QoS {self.qos}",
            "sent": self.sent,
            "lost": self._seen.missing,
            "repeated": self._repeated,
            "out of order": self.inversions,
        }


class Samples:
    """Memory, open files and threads of every process over time."""

    def __init__(self, bench: BenchCluster, log: Path) -> None:
        self._bench = bench
        self._log = log
        self._began = time.monotonic()
        self.rows: list[dict[str, Any]] = []

    async def run(self, every_s: float) -> None:
        while True:
            self.take()
            await asyncio.sleep(every_s)

    def take(self) -> None:
        processes: dict[str, list[float]] = {}
        parts = [
            *self._bench.parts(),
            ("supervisor", self._bench.supervisor),
            ("origin", psutil.Process()),
        ]
        for name, process in parts:
            key = name if name not in processes else f"{name} {process.pid}"
            with contextlib.suppress(psutil.Error):
                memory = process.memory_info().rss / MB
                processes[key] = [round(memory, 2), process.num_fds(), process.num_threads()]
        store = Path(self._bench.record.temp_dir)
        sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
        self.rows.append(
            {
                "at_s": round(time.monotonic() - self._began, 1),
                "store_mb": round(sum(sizes) / MB, 3),
                "log_mb": round(self._log.stat().st_size / MB, 2) if self._log.exists() else 0,
                "processes": processes,
            }
        )

    def table(self) -> list[dict[str, object]]:
        """Per process: its memory after the warm-up, and files and threads at both ends."""
        warm = self.rows[int(len(self.rows) * WARM_UP_SHARE) :]
        table = []
        for name in warm[-1]["processes"]:
            times, values = [], []
            for row in warm:
                if name in row["processes"]:
                    times.append(row["at_s"] / 3600)
                    values.append(row["processes"][name])
            memory = [value[0] for value in values]
            slope = float(np.polyfit(times, memory, 1)[0]) if len(times) > 2 else 0.0
            table.append(
                {
                    "process": name,
                    "MB at first": memory[0],
                    "MB at last": memory[-1],
                    "MB at most": max(memory),
                    "MB/h": slope,
                    "files": f"{values[0][1]} -> {values[-1][1]}",
                    "threads": f"{values[0][2]} -> {values[-1][2]}",
                }
            )
        return table


def check_log(path: Path) -> dict[str, object]:
    """What the recorder wrote: whole, each event once, and no invariant broken."""
    seen, repeated, read = GapCounter(), 0, ReadReport()
    kept = []
    for envelope in read_events(path, read):
        if seen.add(envelope.source, envelope.incarnation, envelope.seq):
            kept.append(envelope)
        else:
            repeated += 1
    rules = Rules(ladder={LOW: HIGH}, clock_tolerance_ns=1_000_000)
    broken = [str(one) for one in check_invariants(kept, rules, problems=read.problems)]
    return {
        "events": read.events,
        "verdict": seen.verdict,
        "problems": list(read.problems),
        "repeated": repeated,
        "violations": len(broken),
        "first_violations": broken[:5],
    }


async def soak(minutes: float, rate: float, every_s: float, run_dir: Path) -> dict[str, Any]:
    seconds = minutes * 60
    async with cluster(spec(), origin="soak", keep=run_dir) as bench:
        traffic = Traffic(bench, random.Random(0))
        probes = [Probe(bench, qos) for qos in (0, 1)]
        samples = Samples(bench, run_dir / "events.jsonl")
        sampling = asyncio.create_task(samples.run(every_s))
        await asyncio.gather(traffic.play(rate, seconds), *(probe.run(seconds) for probe in probes))
        sampling.cancel()
        samples.take()
        bus = bench.client._driver.bus.stats  # noqa: SLF001 - what no user needs
    return {
        "rows": samples.table(),
        "minutes": minutes,
        "rate": rate,
        "outcomes": dict(traffic.outcomes),
        "wrong_answers": len(traffic.wrong),
        "first_wrong": traffic.wrong[:5],
        "probes": [probe.row() for probe in probes],
        "origin_bus": {name: getattr(bus, name) for name in bus.__dataclass_fields__},
        "log": check_log(run_dir / "events.jsonl"),
        "samples": samples.rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between samples")
    arguments = parser.parse_args()
    run_dir = Path(tempfile.mkdtemp(prefix="anyserve-soak-")) / "run"
    result = uvloop.run(soak(arguments.minutes, arguments.rate, arguments.every, run_dir))
    rows = result.pop("rows")
    report(
        "soak", f"{arguments.minutes:g} minutes at {arguments.rate:g} requests/s", rows, **result
    )
    for name in ("outcomes", "wrong_answers", "probes", "log"):
        print(f"{name}: {result[name]}")
    if os.environ.get("ANYSERVE_KEEP") is None:
        shutil.rmtree(run_dir.parent, ignore_errors=True)


if __name__ == "__main__":
    main()
