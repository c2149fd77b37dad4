"""What HTTP servers for Python cost for one stream of 16 events: the figures of docs/adr/0050.

    python benchmarks/http_servers.py [--requests N]

Each server runs alone in a child process with uvloop, and answers a POST with 16 events of 200
bytes, one per turn of its loop. CPU is user and system time of the child. `bare` is what httptools
and a transport cost with nothing around them. Servers that are not installed are left out.
Writes benchmarks/results/http_servers.json.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import multiprocessing
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httptools
import psutil
import uvicorn
import uvloop
from bench import report
from http_overhead import Client, play

EVENT = b"data: " + b"x" * 192 + b"\n\n"
EVENTS = 16
Scope = dict[str, Any]


async def raw_app(_scope: Scope, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(EVENTS):
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
    await send({"type": "http.response.body"})


def starlette_app() -> Any:
    from starlette.applications import Starlette  # noqa: PLC0415 - may not be there
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import StreamingResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def events() -> AsyncIterator[bytes]:
        for _ in range(EVENTS):
            await asyncio.sleep(0)
            yield EVENT

    async def serve(request: Request) -> StreamingResponse:
        await request.body()
        return StreamingResponse(events(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", serve, methods=["POST"])])


def run_uvicorn(app: Any, port: int) -> None:
    uvicorn.run(
        app, port=port, loop="uvloop", http="httptools", log_level="error", access_log=False
    )


def run_aiohttp(port: int) -> None:
    from aiohttp import web  # noqa: PLC0415 - may not be there

    async def serve(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(EVENTS):
            await asyncio.sleep(0)
            await response.write(EVENT)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", serve)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


class Bare(asyncio.Protocol):
    """httptools on a transport."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        self._transport.write(head + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(EVENTS):
            await asyncio.sleep(0)
            self._transport.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        self._transport.write(b"0\r\n\r\n")


def run_bare(port: int) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())


def servers() -> dict[str, tuple[Callable[..., None], tuple[Any, ...]]]:
    found: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
        "bare httptools": (run_bare, ()),
        "uvicorn, ASGI": (run_uvicorn, (raw_app,)),
    }
    if importlib.util.find_spec("starlette"):
        found["uvicorn, Starlette"] = (run_uvicorn, (starlette_app(),))
    if importlib.util.find_spec("aiohttp"):
        found["aiohttp"] = (run_aiohttp, ())
    return found


async def measure(child: psutil.Process, port: int, requests: int) -> list[dict[str, object]]:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: b\r\ncontent-type: application/json\r\n"
    request = head + b"content-length: 2\r\n\r\n{}"
    await play(port, [request] * 200, 8)
    rows: list[dict[str, object]] = []
    for concurrency in (1, 32):
        before = child.cpu_times()
        _, answers = await play(port, [request] * requests, concurrency)
        after = child.cpu_times()
        spent = after.user + after.system - before.user - before.system
        assert all(one.chunks == EVENTS for one in answers)
        rows.append(
            {
                "concurrency": concurrency,
                "p50 ms": 1000 * statistics.median(one.whole_s for one in answers),
                "cpu ms": 1000 * spent / requests,
            }
        )
    return rows


async def until_open(port: int) -> None:
    for _ in range(200):
        try:
            (await Client.connect(port)).close()
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return
    raise TimeoutError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    rows: list[dict[str, object]] = []
    for name, (run, arguments) in servers().items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        child = multiprocessing.get_context("fork").Process(target=run, args=(*arguments, port))
        child.start()
        try:
            asyncio.run(until_open(port))
            assert child.pid is not None
            found = asyncio.run(measure(psutil.Process(child.pid), port, requests))
            rows += [{"server": name, **row} for row in found]
        finally:
            child.kill()
            child.join()
        time.sleep(0.2)
    report("http_servers", "one stream of 16 events, CPU of the server", rows)


if __name__ == "__main__":
    main()
