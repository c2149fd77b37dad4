"""Real worker processes with the engines that need no model, with and without a zygote."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from anyserve.errors import StartError
from anyserve.runtime.engines.base import (
    Delta,
    EngineConfig,
    EngineInfo,
    EngineKind,
    EngineRequest,
    Sampling,
)
from anyserve.runtime.lifeline import Lifeline
from anyserve.runtime.worker import ipc
from anyserve.runtime.worker.client import WorkerClient, WorkerExit

ECHO = EngineConfig(kind=EngineKind.ECHO, max_model_len=64)
PATIENCE_S = 20.0


class Listener:
    """Keeps what a worker reports and lets a test wait for it."""

    def __init__(self) -> None:
        self.info: EngineInfo | None = None
        self.deltas: list[Delta] = []
        self.failed: list[ipc.Failed] = []
        self.cancelled: list[str] = []
        self.beats: list[ipc.Heartbeat] = []
        self.exits: list[WorkerExit] = []
        self._changed = asyncio.Condition()
        self._notes: set[asyncio.Task[None]] = set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(holds)

    def tokens(self, key: str) -> list[int]:
        return [token for d in self.deltas if d.key == key for token in d.token_ids]

    def done(self, key: str) -> bool:
        return any(delta.done for delta in self.deltas if delta.key == key)

    def on_loading(self, stage: str, fraction: float) -> None:
        assert stage
        assert 0.0 <= fraction <= 1.0

    def on_ready(self, info: EngineInfo, load_ms: float) -> None:
        assert load_ms > 0
        self.info = info
        self._note()

    def on_frame(self, frame: ipc.StepFrame) -> None:
        self.deltas += frame.deltas
        self._note()

    def on_failed(self, failed: ipc.Failed) -> None:
        self.failed.append(failed)
        self._note()

    def on_cancelled(self, keys: list[str]) -> None:
        self.cancelled += keys
        self._note()

    def on_heartbeat(self, beat: ipc.Heartbeat) -> None:
        self.beats.append(beat)
        self._note()

    def on_exit(self, ended: WorkerExit) -> None:
        self.exits.append(ended)
        self._note()

    def _note(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.create_task(notify())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)


def request(key: str, tokens: int = 4, prompt: int = 3) -> EngineRequest:
    return EngineRequest(
        key=key, prompt_ids=list(range(prompt)), sampling=Sampling(max_tokens=tokens)
    )


@pytest.fixture(scope="module")
def zygote_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("zygote") / "z.sock"
    process = start_zygote(path)
    yield path
    process.terminate()
    process.wait(10)


def start_zygote(path: Path, **settings: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "anyserve.runtime.worker.zygote", "--socket", str(path)]
    return subprocess.Popen(command, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(params=["spawned", "forked"])
def zygote(request: pytest.FixtureRequest) -> Path | None:
    if request.param == "spawned":
        return None
    path: Path = request.getfixturevalue("zygote_path")
    return path


@asynccontextmanager
async def running(
    zygote: Path | None, config: EngineConfig = ECHO, log: Path | None = None
) -> AsyncIterator[tuple[WorkerClient, Listener]]:
    listener = Listener()
    client = await WorkerClient.launch(config, listener, zygote=zygote, log_path=log)
    try:
        yield client, listener
    finally:
        client.kill()
        await client.wait()


async def gone(pid: int) -> None:
    """Wait until a process that is not our child is no more."""
    async with asyncio.timeout(PATIENCE_S):
        # A process that is not our child gives no event when it ends.
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", [EngineKind.ECHO, EngineKind.MODEL])
async def test_a_worker_answers_and_stops(zygote: Path | None, kind: EngineKind) -> None:
    async with running(zygote, EngineConfig(kind=kind, max_model_len=64)) as (client, listener):
        client.submit(request("a"))
        client.submit(request("b", tokens=2))
        await listener.until(lambda: listener.done("a") and listener.done("b"))

        assert listener.info is not None
        assert listener.info.max_model_len == 64
        assert listener.tokens("a") == [0, 1, 2, 0]
        assert listener.tokens("b") == [0, 1]
        ended = await client.stop()

    assert (ended.code, ended.signal) == (0, None)
    assert listener.exits == [ended]


async def test_a_bad_request_fails_and_the_next_is_served(zygote: Path | None) -> None:
    async with running(zygote) as (client, listener):
        client.submit(request("bad", prompt=64))
        client.submit(request("good"))
        await listener.until(lambda: listener.done("good"))

        assert [(failed.key, failed.code) for failed in listener.failed] == [("bad", "too_long")]


async def test_a_cancelled_request_stops_between_steps(zygote: Path | None) -> None:
    slow = EngineConfig(kind=EngineKind.ECHO, max_model_len=4096, step_interval_ms=5)
    async with running(zygote, slow) as (client, listener):
        client.submit(request("a", tokens=4000))
        await listener.until(lambda: len(listener.deltas) >= 2)
        client.cancel("a")
        await listener.until(lambda: listener.cancelled == ["a"])
        seen = len(listener.deltas)
        client.submit(request("b"))
        await listener.until(lambda: listener.done("b"))

        assert {delta.key for delta in listener.deltas[seen:]} == {"b"}


async def test_the_heart_beats_while_a_step_hangs(zygote: Path | None) -> None:
    hanging = EngineConfig(kind=EngineKind.ECHO, step_interval_ms=60_000)
    async with running(zygote, hanging) as (client, listener):
        client.submit(request("a"))
        await listener.until(lambda: any(b.step_started_ns for b in listener.beats))
        beat = listener.beats[-1]

        assert beat.step_started_ns is not None
        assert beat.step_started_ns < beat.now_ns
        assert beat.held == 1


async def test_a_worker_that_will_not_stop_is_killed(zygote: Path | None) -> None:
    hanging = EngineConfig(kind=EngineKind.ECHO, step_interval_ms=60_000)
    async with running(zygote, hanging) as (client, listener):
        client.submit(request("a"))
        await listener.until(lambda: any(b.step_started_ns for b in listener.beats))
        ended = await client.stop(grace_s=0.01)

    assert ended.signal == signal.SIGKILL


async def test_a_killed_worker_is_reported_once_with_its_signal(zygote: Path | None) -> None:
    async with running(zygote) as (client, listener):
        await listener.until(lambda: listener.info is not None)
        os.kill(client.pid, signal.SIGKILL)
        await listener.until(lambda: bool(listener.exits))
        client.submit(request("too late"))
        client.kill()

    assert [(ended.code, ended.signal) for ended in listener.exits] == [(None, signal.SIGKILL)]
    assert listener.exits[0].reason == "killed by SIGKILL"


async def test_an_engine_that_cannot_start_says_why(zygote: Path | None) -> None:
    impossible = EngineConfig(kind=EngineKind.MODEL, max_model_len=8192, kv_cache_gib=0.01)
    async with running(zygote, impossible) as (_, listener):
        await listener.until(lambda: bool(listener.exits))

    (ended,) = listener.exits
    assert ended.code == 3
    assert ended.fatal is not None
    assert ended.fatal.code == "kv_too_small"
    assert ended.fatal.hint
    assert listener.info is None


async def test_what_a_worker_prints_lands_in_its_log(zygote: Path | None, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    async with running(zygote, log=log) as (client, listener):
        client.submit(request("a", tokens=60))
        client.submit(request("a"))
        await listener.until(lambda: listener.done("a"))
        await client.stop()

    assert "submitted twice" in log.read_text()


REPLICA = """
import asyncio, sys
from pathlib import Path
from anyserve.runtime.engines.base import EngineConfig
from anyserve.runtime.worker.client import WorkerClient

class Quiet:
    def __getattr__(self, name):
        return lambda *_: None

async def main():
    zygote = Path(sys.argv[1]) if sys.argv[1] else None
    client = await WorkerClient.launch(EngineConfig(kind="echo"), Quiet(), zygote=zygote)
    print(client.pid, flush=True)
    await client.wait()

asyncio.run(main())
"""


async def test_a_worker_dies_with_its_replica(zygote: Path | None) -> None:
    replica = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REPLICA, str(zygote or ""), stdout=asyncio.subprocess.PIPE
    )
    assert replica.stdout is not None
    pid = int(await replica.stdout.readline())
    assert psutil.pid_exists(pid)

    replica.kill()
    await replica.wait()

    await gone(pid)


async def test_workers_die_with_their_zygote(tmp_path: Path) -> None:
    path = tmp_path / "z.sock"
    process = start_zygote(path)
    listeners = [Listener(), Listener()]
    clients = [await WorkerClient.launch(ECHO, one, zygote=path) for one in listeners]
    for one in listeners:
        await one.until(lambda one=one: one.info is not None)  # type: ignore[misc]

    process.kill()
    process.wait(10)

    for client, one in zip(clients, listeners, strict=True):
        await client.wait()
        assert (one.exits[0].code, one.exits[0].signal) == (None, None)
        assert "zygote" in one.exits[0].reason
        await gone(client.pid)


async def test_a_zygote_dies_with_its_lifeline(tmp_path: Path) -> None:
    path = tmp_path / "z.sock"
    with Lifeline() as lifeline:
        process = start_zygote(path, pass_fds=lifeline.pass_fds, env={**os.environ, **lifeline.env})
        listener = Listener()
        client = await WorkerClient.launch(ECHO, listener, zygote=path)
        await listener.until(lambda: listener.info is not None)

    await asyncio.to_thread(process.wait, 10)
    await client.wait()
    await gone(client.pid)


async def test_one_dead_worker_leaves_its_siblings_alone(zygote_path: Path) -> None:
    async with (
        running(zygote_path) as (first, first_listener),
        running(zygote_path) as (second, second_listener),
    ):
        await second_listener.until(lambda: second_listener.info is not None)
        first.kill()
        await first_listener.until(lambda: bool(first_listener.exits))
        second.submit(request("a"))
        await second_listener.until(lambda: second_listener.done("a"))

        assert second_listener.exits == []


async def test_a_zygote_survives_nonsense(zygote_path: Path) -> None:
    async with running(zygote_path) as (client, listener):
        reader, writer = await asyncio.open_unix_connection(str(zygote_path))
        writer.write(b"\x00\x00\x00\x03abc")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

        client.submit(request("a"))
        await listener.until(lambda: listener.done("a"))

    async with running(zygote_path) as (client, listener):
        client.submit(request("b"))
        await listener.until(lambda: listener.done("b"))


async def test_a_zygote_that_never_comes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no answer"):
        await WorkerClient.launch(ECHO, Listener(), zygote=tmp_path / "none", timeout_s=0.1)
