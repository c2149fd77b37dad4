"""What one delegation adds to the first token, on the embedded and on an external broker.

    python benchmarks/hop.py [--requests N]

Echo engines. The same request enters alternately at the replica that serves it and at one that
has to delegate it; the difference is two more messages through the broker and a decision. The
external broker is mosquitto with its Debian defaults, once as they are and once with
`set_tcp_nodelay`; rows are missing where it is not installed. No value may be near 40 ms: that
would be Nagle's algorithm waiting for a delayed acknowledgement.
Writes benchmarks/results/hop.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import uvloop
from bench import BenchCluster, cluster, report

from anyserve.core.messages import Offer
from anyserve.core.spec import BrokerSpec, CapabilitySpec, ClusterSpec, EngineSpec, ReplicaSpec
from anyserve.runtime.engines.base import Sampling
from anyserve.runtime.origin import Draft

CAPABILITY = "decode.heavy"


def spec(url: str | None) -> ClusterSpec:
    engine = EngineSpec(kind="echo")
    return ClusterSpec(
        name="bench-hop",
        capabilities=(CapabilitySpec(name="decode"), CapabilitySpec(name=CAPABILITY)),
        replicas=(
            ReplicaSpec(id="s1", offers=(Offer(capability="decode"),), engine=engine),
            ReplicaSpec(id="h1", offers=(Offer(capability=CAPABILITY),), engine=engine),
        ),
        broker=BrokerSpec(url=url),
    )


async def first_token_ms(bench: BenchCluster, entry: str) -> float:
    draft = Draft(
        capability=CAPABILITY,
        prompt_ids=[1, 2, 3, 4],
        max_tokens=1,
        sampling=Sampling(max_tokens=1, ignore_eos=True),
        entry=entry,
    )
    began = time.perf_counter()
    handle = bench.client.offer(draft, streamed=True)
    async for _ in handle:
        break
    took_ms = (time.perf_counter() - began) * 1000
    await handle.outcome
    return took_ms


async def measure(name: str, url: str | None, requests: int) -> list[dict[str, object]]:
    async with cluster(spec(url)) as bench:
        for entry in ("h1", "s1") * 10:
            await first_token_ms(bench, entry)
        times = [
            (await first_token_ms(bench, "h1"), await first_token_ms(bench, "s1"))
            for _ in range(requests)
        ]
    direct, delegated = np.array(times).T
    rows = []
    for way, values in (
        ("direct", direct),
        ("delegated", delegated),
        ("added", delegated - direct),
    ):
        p50, p99 = np.percentile(values, [50, 99])
        rows.append(
            {
                "broker": name,
                "entry": way,
                "p50 ms": float(p50),
                "p99 ms": float(p99),
                "over 30 ms": int((values > 30).sum()),
            }
        )
    return rows


@contextlib.asynccontextmanager
async def mosquitto(*settings: str) -> AsyncIterator[str]:
    """A mosquitto with these settings on a free port; its URL."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/sbin")
    assert binary is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        lines = (f"listener {port} 127.0.0.1", "allow_anonymous true", *settings)
        config.write_text("\n".join(lines) + "\n")
        process = await asyncio.create_subprocess_exec(
            binary, "-c", str(config), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await asyncio.sleep(0.5)
            yield f"mqtt://127.0.0.1:{port}"
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 10)


async def measure_all(requests: int) -> list[dict[str, object]]:
    rows = await measure("nats (embedded)", None, requests)
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/sbin:/usr/local/bin") is None:
        return rows
    async with mosquitto("set_tcp_nodelay true", "max_queued_messages 0") as url:
        rows += await measure("mosquitto, nodelay", url, requests)
    async with mosquitto() as url:
        rows += await measure("mosquitto, defaults", url, requests // 4)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    rows = uvloop.run(measure_all(parser.parse_args().requests))
    report("hop", "time to the first token", rows)


if __name__ == "__main__":
    main()
