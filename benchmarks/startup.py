"""How soon four engines are ready, against one `vllm serve`; and what each keeps in memory.

    python benchmarks/startup.py [--rounds N]

`cluster`: the four vLLM replicas of scenarios/mixed.yaml, with everything around them, from the
start of the supervisor to the registration of the last replica as ready. `vllm serve`: one server
with the model and the settings of the first of these replicas (threads, KV cache, context, eager
mode), from the start of its process to its first healthy answer. They take turns, `vllm serve`
first, so that what the machine keeps in its cache helps the cluster no more than the server.
Memory is PSS, the share of each process in what several have in common, once all are ready.
Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import random
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import psutil
import uvloop
from bench import cluster, report

from anyserve.core.spec import ClusterSpec, ReplicaSpec
from anyserve.runtime.models.resolve import resolve_model
from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import load_scenario

SCENARIO = Path(__file__).parent.parent / "scenarios" / "mixed.yaml"
PATIENCE_S = 400


def pss_mib(processes: Iterable[psutil.Process]) -> float:
    """The sum of the processes' proportional shares of memory, in MiB."""
    kib = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


async def start_cluster(spec: ClusterSpec) -> tuple[float, dict[str, float]]:
    """Seconds until ready, and the memory of each worker and of all else."""
    async with cluster(spec, origin="startup") as bench:
        parts = bench.parts()
        workers = [process for name, process in parts if name == "workers"]
        memory = {f"worker {n}": pss_mib([one]) for n, one in enumerate(workers, 1)}
        rest = [process for name, process in parts if name != "workers"]
        memory["all else"] = pss_mib([*rest, bench.supervisor])
        return bench.ready_s, memory


async def start_server(replica: ReplicaSpec) -> tuple[float, float]:
    """Seconds until healthy, and the memory of the server with all its processes."""
    engine = replica.engine
    assert engine.model is not None
    port = _free_port()
    command = (
        # What `vllm serve` runs; the command itself asks for a distribution called `vllm`, which
        # the CPU build is not.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", resolve_model(engine.model).path),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
        *("--max-model-len", str(engine.max_model_len), "--max-num-seqs", str(engine.max_num_seqs)),
        *("--max-num-batched-tokens", str(engine.max_num_batched_tokens or 256)),
        *("--kv-cache-memory-bytes", str(round(engine.kv_cache_gib * 2**30))),
    )
    environment = {
        **os.environ,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": str(engine.threads),
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=log, stderr=log
        )
        tree = psutil.Process(process.pid)
        try:
            await _until_healthy(port, process, began)
            ready_s = time.monotonic() - began
            return ready_s, pss_mib([tree, *tree.children(recursive=True)])
        except RuntimeError:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 60)


def _free_port() -> int:
    """One that nobody who asks the system for a free one is given meanwhile."""
    while True:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", random.randrange(20_000, 30_000)))
            port: int = free.getsockname()[1]
            return port


async def _until_healthy(port: int, process: asyncio.subprocess.Process, began: float) -> None:
    while time.monotonic() - began < PATIENCE_S:
        if process.returncode is not None:
            break
        if await asyncio.to_thread(_is_healthy, port):
            return
        await asyncio.sleep(0.1)
    raise RuntimeError("vllm serve did not become healthy")


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


async def measure(rounds: int) -> tuple[list[dict[str, object]], dict[str, object]]:
    spec = compile_scenario(load_scenario(SCENARIO), seed=0, engine_kind=lambda _: "vllm").cluster
    servers, clusters, memory = [], [], dict[str, float]()
    for _ in range(rounds):
        servers.append(await start_server(spec.replicas[0]))
        ready_s, memory = await start_cluster(spec)
        clusters.append(ready_s)
    serve_s = statistics.median(ready_s for ready_s, _ in servers)
    cluster_s = statistics.median(clusters)
    rows: list[dict[str, object]] = [
        {"what": "vllm serve, one engine", "ready s": serve_s, "PSS MiB": servers[-1][1]},
        {"what": "cluster, four engines", "ready s": cluster_s, "PSS MiB": sum(memory.values())},
        *({"what": name, "ready s": "", "PSS MiB": value} for name, value in memory.items()),
    ]
    kv = {replica.id: replica.engine.kv_cache_gib for replica in spec.replicas}
    facts = {"ratio": cluster_s / serve_s, "kv_cache_gib": kv, "clusters_s": clusters}
    return rows, {**facts, "servers_s": [ready_s for ready_s, _ in servers]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    rows, facts = uvloop.run(measure(parser.parse_args().rounds))
    report("startup", "ready sooner than one server?", rows, **facts)
    print(f"cluster / vllm serve: {facts['ratio']:.2f}")


if __name__ == "__main__":
    main()
