"""What the gRPC front door costs, beside the HTTP one of the same cluster and run.

    python benchmarks/grpc_overhead.py [--requests N]

A stream of 16 pieces through each door, engines that compute nothing (one token each 5 ms). CPU is
user and system time of all processes of the cluster; the client in this process is not in it. The
doors take turns. Both have the metrics of `/metrics` on, as every cluster's own ingress has.

Writes benchmarks/results/grpc_echo.json.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import Any

import grpc
import msgspec
import uvloop
from bench import BenchCluster, cluster, report
from http_overhead import TOKENS, chat, cluster_cpu, difference, echo_spec, play

from anyserve.core.spec import IngressSpec
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.runtime.ingress.oip import inference_pb2 as pb
from anyserve.runtime.ingress.oip.service import SERVICE
from anyserve.runtime.supervisor import control

CONCURRENCIES = (64, 8)
ROUNDS = 3


def asking() -> pb.ModelInferRequest:
    """A stream of 16 pieces."""
    request = pb.ModelInferRequest(model_name="decode")
    given = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(b"0123456789abcdef" * 2)
    request.parameters["max_tokens"].int64_param = TOKENS
    request.parameters["ignore_eos"].bool_param = True
    return request


async def play_grpc(address: str, count: int, concurrency: int) -> tuple[float, list[float], int]:
    """Keep `concurrency` requests open, each worker on a stream of its own."""
    left = iter(range(count))
    times: list[float] = []
    pieces = 0

    async def one_after_the_other(channel: grpc.aio.Channel) -> None:
        nonlocal pieces
        method: Any = channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        call = method()
        request = asking()
        for _ in left:
            began = time.perf_counter()
            await call.write(request)
            while True:
                answer = await call.read()
                assert not answer.error_message, answer.error_message
                pieces += 1
                if answer.infer_response.parameters["triton_final_response"].bool_param:
                    break
            times.append(time.perf_counter() - began)
        await call.done_writing()

    began = time.perf_counter()
    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.gather(*(one_after_the_other(channel) for _ in range(concurrency)))
    return time.perf_counter() - began, times, pieces


async def measure(requests: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    spec = msgspec.structs.replace(
        echo_spec(64), ingress=IngressSpec(http_port=0, grpc_port=0), name="bench-grpc"
    )
    async with cluster(spec) as bench:
        record = ClusterStore(state_dir(os.environ)).find("bench-grpc")
        async with control.ControlClient(Path(record.control)) as asked:
            door = (await asked.status()).doors[0]
        http_port = int(door.http.rpartition(":")[2])
        await play(http_port, [chat(None, "x")] * 128, 64)
        await play_grpc(door.grpc, 128, 64)
        for concurrency in CONCURRENCIES:
            count = requests if concurrency == max(CONCURRENCIES) else requests // 4
            for turn in range(ROUNDS):
                rows.append(await _http(bench, http_port, count, concurrency, turn))
                rows.append(await _grpc(bench, door.grpc, count, concurrency, turn))
    return rows


async def _http(
    bench: BenchCluster, port: int, count: int, concurrency: int, turn: int
) -> dict[str, object]:
    before = cluster_cpu(bench)
    request = chat(None, "0123456789abcdef" * 2)
    took_s, answers = await play(port, [request] * count, concurrency)
    assert all(one.status == 200 for one in answers)
    events = statistics.mean(one.chunks for one in answers)
    times = [one.whole_s for one in answers]
    return _row(
        bench, before, (took_s, times, events), door="http", concurrency=concurrency, round=turn
    )


async def _grpc(
    bench: BenchCluster, address: str, count: int, concurrency: int, turn: int
) -> dict[str, object]:
    before = cluster_cpu(bench)
    took_s, times, pieces = await play_grpc(address, count, concurrency)
    return _row(
        bench,
        before,
        (took_s, times, pieces / count),
        door="grpc",
        concurrency=concurrency,
        round=turn,
    )


def _row(
    bench: BenchCluster,
    before: dict[str, float],
    played: tuple[float, list[float], float],
    **which: object,
) -> dict[str, object]:
    took_s, times, events = played
    spent = difference(before, cluster_cpu(bench))
    count = len(times)
    return {
        **which,
        "requests/s": count / took_s,
        "events": events,
        "p50 ms": 1000 * statistics.median(times),
        "ingress ms": 1000 * spent["ingress"] / count,
        "all ms": 1000 * sum(spent.values()) / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    rows = uvloop.run(measure(options.requests))
    report("grpc_echo", "a stream of 16 pieces through each door, CPU per request", rows)


if __name__ == "__main__":
    main()
