from __future__ import annotations

import asyncio
import contextlib
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from anyserve.errors import AnyServeError, StartError, TimeLimitError, UsageError
from anyserve.runtime.supervisor import control


class Handler:
    """Answers what the test wants and writes down what was asked."""

    def __init__(self) -> None:
        self.asked: list[control.AnyRequest] = []
        self.result: Any = None

    async def handle(self, request: control.AnyRequest) -> Any:
        self.asked.append(request)
        if isinstance(self.result, Exception):
            raise self.result
        if isinstance(self.result, asyncio.Event):
            await self.result.wait()
        return self.result


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def path(handler: Handler) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="as-") as short:
        path = Path(short) / "control"
        server = control.ControlServer(path, handler.handle)
        await server.start()
        yield path
        await server.close()
        assert not path.exists()


REQUESTS: list[control.AnyRequest] = [
    control.Status(),
    control.Stop(drain=False),
    control.Kill(target="worker", id="s1"),
    control.Hang(target="replica", id="s1", duration_s=2.0),
    control.Resume(target="worker", id="s1"),
    control.Slow(id="s1", factor=3.0),
    control.Drain(id="s1"),
    control.Restart(name="scheduler"),
    control.Release(),
]


async def test_every_request_arrives_as_it_was_sent(path: Path, handler: Handler) -> None:
    async with control.ControlClient(path) as client:
        for request in REQUESTS:
            await client.ask(request)
    assert handler.asked == REQUESTS


async def test_socket_is_for_its_owner_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # noqa: ASYNC240 - instant


async def test_status_reads_back(path: Path, handler: Handler) -> None:
    handler.result = control.ClusterStatus(
        cluster="c",
        state="running",
        broker="mqtt://127.0.0.1:1883",
        run_dir="/r",
        uptime_s=3.5,
        processes=[control.ProcessStatus(name="scheduler", state="running", pid=7)],
        replicas=[control.ReplicaStatus(id="s1", state="ready", worker_pid=8)],
    )
    async with control.ControlClient(path) as client:
        assert await client.status() == handler.result


async def test_one_request_on_its_own(path: Path, handler: Handler) -> None:
    assert await control.request(path, control.Release()) is None
    handler.result = {"a": 1}
    assert await control.request(path, control.Status()) == {"a": 1}


async def test_refusal_keeps_its_kind_code_and_hint(path: Path, handler: Handler) -> None:
    handler.result = UsageError("no replica x", code="no_such_replica", hint="there is s1")
    with pytest.raises(UsageError, match="no replica x") as refused:
        await control.request(path, control.Drain(id="x"))
    assert (refused.value.code, refused.value.hint) == ("no_such_replica", "there is s1")


async def test_bug_in_the_handler_is_an_answer(path: Path, handler: Handler) -> None:
    handler.result = ValueError("oh")
    with pytest.raises(AnyServeError, match="ValueError: oh"):
        await control.request(path, control.Status())


async def test_line_that_is_no_request_is_answered_and_the_next_one_works(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    for line in (b"hello\n", b'{"op":"kill","target":"broker","id":"x"}\n'):
        writer.write(line)
        assert b'"code":"control_request"' in await reader.readline()
    writer.write(b'{"op":"status"}\n')
    assert await reader.readline() == b'{"ok":true,"result":null}\n'
    writer.close()
    await writer.wait_closed()


async def test_endless_line_ends_the_connection_only(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"x" * 3_000_000)
    with contextlib.suppress(ConnectionResetError):  # it left with our bytes unread
        assert await reader.read() == b""
    writer.transport.abort()
    assert await control.request(path, control.Status()) is None


async def test_supervisor_that_does_not_answer_is_a_time_limit(
    path: Path, handler: Handler
) -> None:
    handler.result = asyncio.Event()
    with pytest.raises(TimeLimitError):
        await control.request(path, control.Status(), timeout_s=0.05)


async def test_nobody_there_is_a_sentence() -> None:
    with pytest.raises(StartError, match="does not listen"):
        await control.request(Path("/nowhere/control"), control.Status())


async def test_path_that_is_too_long_is_a_sentence(tmp_path: Path, handler: Handler) -> None:
    server = control.ControlServer(tmp_path / ("x" * 120), handler.handle)
    with pytest.raises(StartError, match="cannot listen") as failed:
        await server.start()
    assert "TMPDIR" in failed.value.hint
