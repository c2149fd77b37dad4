"""Front doors under test: a served cluster, further ingresses that join it, and raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from live import LiveCluster, echo, replica, two_rungs

from anyserve.core.spec import CapabilitySpec, ClusterSpec, DelegationSpec, IngressSpec
from anyserve.runtime.bus.address import Role
from anyserve.runtime.ingress.ingress import Ingress, IngressOptions
from anyserve.runtime.process import boot_id
from anyserve.runtime.supervisor import control

WAIT_S = 30.0
_OPEN: list[asyncio.StreamWriter] = []


def served_spec(ingress: IngressSpec | None = None, **changes: Any) -> ClusterSpec:
    """`decode` up to 256 tokens on s1, `decode.heavy` and `tight` (a queue of one) on h1,
    `embedding` on e1, one step each 10 ms; `quick` up to 64 tokens at once on q1; `vision` nowhere.
    Doors at the cluster's ingress and in every replica, on free ports."""
    spec = two_rungs(capabilities=[CapabilitySpec(name="tight", queue_limit=1)], **changes)
    embed = replica("e1", "embedding", engine=echo(512, task="embed"))
    quick = replica("q1", "quick", max_tokens=64, engine=echo(64, step_ms=0.0))
    more = (CapabilitySpec(name=name) for name in ("embedding", "quick", "vision"))
    return msgspec.structs.replace(
        spec,
        capabilities=(*spec.capabilities, *more),
        replicas=(*spec.replicas, embed, quick),
        ingress=ingress or IngressSpec(http_port=0, replica_http_port=0),
    )


def overload_spec() -> ClusterSpec:
    """s1 has 4 slots, an entry queue of 4, and the scheduler's queue before it is 4 long; the rung
    above is idle, and overload delegation on."""
    spec = two_rungs(
        small={"engine": echo(256, step_ms=25.0), "concurrency": 4, "entry_queue": 4},
        large={"engine": echo(2048, step_ms=25.0), "concurrency": 32},
        delegation=DelegationSpec(overload=True),
    )
    return msgspec.structs.replace(
        spec,
        capabilities=(
            CapabilitySpec(name="decode", queue_limit=4, target_wait_ms=60_000.0),
            CapabilitySpec(name="decode.heavy"),
        ),
        ingress=IngressSpec(http_port=0, replica_http_port=0),
    )


async def doors_of(cluster: LiveCluster) -> dict[str, str]:
    """Base URLs by replica; empty: the cluster's own ingress."""
    status = msgspec.convert(await cluster.ask(control.Status()), control.ClusterStatus)
    return {one.replica: one.http for one in status.doors if one.replica or one.name == "ingress"}


@asynccontextmanager
async def another_ingress(
    cluster: LiveCluster, environ: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[tuple[Ingress, str]]:
    """One more ingress in this process, with settings of its own; the URL of its HTTP door."""
    name = f"door-{uuid.uuid4().hex[:8]}"
    spec = msgspec.structs.replace(cluster.spec, ingress=IngressSpec(http_port=0, **settings))
    options = IngressOptions(
        cluster=spec,
        broker=cluster.record.broker,
        credential=cluster.record.role_credentials().of(Role.ORIGIN),
        prefix=cluster.record.prefix,
        name=name,
        incarnation=time.time_ns() // 1_000_000,
        boot=boot_id(),
        http_port=0,
        grpc_port=None,
        log_path=cluster.run_dir / f"origin-{name}.jsonl",
    )
    ingress = Ingress(options, environ or {})
    try:
        opened = await ingress.open()
        yield ingress, opened.http
    finally:
        await ingress.close()


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer as it came."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self) -> dict[str, Any]:
        """The inner object of an error."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found

    def json(self) -> Any:
        return json.loads(self.body)


def request_bytes(
    path: str, body: Any = None, headers: Mapping[str, str] | None = None, method: str | None = None
) -> bytes:
    """A request on the wire."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "host: test"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def connect(url: str, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection; `hang_up` closes it after the test."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), **options)
    _OPEN.append(writer)
    return reader, writer


async def hang_up() -> None:
    """Close all bare connections."""
    writers, _OPEN[:] = list(_OPEN), []
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """One answer, whatever its framing."""
    async with asyncio.timeout(WAIT_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([part async for part in chunks(reader)])
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(int(head[0].split()[1]), headers, body)


async def chunks(reader: asyncio.StreamReader, *, begun: bool = False) -> AsyncIterator[bytes]:
    """The parts of a chunked body, to its proper end; fails where it is cut off. `begun`: the
    reader stands within a part, whose rest is passed over."""
    if begun:
        await reader.readuntil(b"\n\n\r\n")
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        part = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield part[:-2]


async def ask(
    url: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
) -> Reply:
    """One request on a connection of its own."""
    reader, writer = await connect(url)
    writer.write(request_bytes(path, body, headers, method))
    reply = await read_reply(reader)
    writer.close()
    return reply


def events_of(body: bytes) -> list[str]:
    """The data of each event of a stream."""
    return [part.removeprefix("data: ") for part in body.decode().split("\n\n") if part.strip()]
