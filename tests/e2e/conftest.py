"""Real vLLM with real small models, forked from a real zygote."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from anyserve.runtime.engines.base import (
    Delta,
    EngineConfig,
    EngineInfo,
    EngineKind,
    EngineRequest,
    Task,
)
from anyserve.runtime.engines.detect import detect
from anyserve.runtime.models import ResolvedModel, resolve_model
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.worker import ipc
from anyserve.runtime.worker.client import WorkerClient, WorkerExit

START_S = 180.0
ANSWER_S = 60.0


class VllmWorker:
    """A worker with vLLM in it, as a replica sees it."""

    def __init__(self, model: ResolvedModel, tokenizer: TextTokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.client: WorkerClient
        self.info: EngineInfo
        self.frames: list[ipc.StepFrame] = []
        self.failed: dict[str, ipc.Failed] = {}
        self.cancelled: set[str] = set()
        self._queues: defaultdict[str, asyncio.Queue[Delta | None]] = defaultdict(asyncio.Queue)
        self._started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()

    async def ready(self) -> None:
        self.info = await asyncio.wait_for(self._ready, START_S)

    async def stream(self, request: EngineRequest) -> AsyncIterator[Delta]:
        """Submit and yield deltas until the request is done, cancelled or refused."""
        self.client.submit(request)
        async with asyncio.timeout(ANSWER_S):
            while (delta := await self._queues[request.key].get()) is not None:
                yield delta
                if delta.done:
                    return

    async def answer(self, request: EngineRequest) -> list[Delta]:
        return [delta async for delta in self.stream(request)]

    def on_loading(self, stage: str, fraction: float) -> None:
        assert stage
        assert 0.0 <= fraction <= 1.0

    def on_ready(self, info: EngineInfo, load_ms: float) -> None:
        assert load_ms > 0
        self._ready.set_result(info)

    async def until_started(self, key: str) -> None:
        """Wait for the first delta of a request that somebody else streams."""
        async with asyncio.timeout(ANSWER_S):
            await self._started[key].wait()

    def on_frame(self, frame: ipc.StepFrame) -> None:
        self.frames.append(frame)
        for delta in frame.deltas:
            self._queues[delta.key].put_nowait(delta)
            self._started[delta.key].set()

    def on_failed(self, failed: ipc.Failed) -> None:
        self.failed[failed.key] = failed
        self._queues[failed.key].put_nowait(None)

    def on_cancelled(self, keys: list[str]) -> None:
        self.cancelled.update(keys)
        for key in keys:
            self._queues[key].put_nowait(None)

    def on_heartbeat(self, beat: ipc.Heartbeat) -> None:
        assert beat.now_ns > 0

    def on_exit(self, ended: WorkerExit) -> None:
        if not self._ready.done():
            self._ready.set_exception(RuntimeError(ended.reason))
        for queue in self._queues.values():
            queue.put_nowait(None)


@pytest.fixture(scope="session")
def vllm_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = detect()
    if found.engine is not EngineKind.VLLM:
        pytest.skip(found.reason)
    path = tmp_path_factory.mktemp("zygote") / "z.sock"
    command = [sys.executable, "-m", "anyserve.runtime.worker.zygote", "--socket", str(path)]
    process = subprocess.Popen([*command, "--preload", "vllm"], stderr=subprocess.DEVNULL)
    yield path
    process.terminate()
    process.wait(10)


@asynccontextmanager
async def vllm_worker(
    zygote: Path, name: str, log: Path, max_model_len: int
) -> AsyncIterator[VllmWorker]:
    model = resolve_model(name)
    worker = VllmWorker(model, TextTokenizer(Path(model.path)))
    config = EngineConfig(
        kind=EngineKind.VLLM,
        model=model.path,
        name=name,
        task=Task(model.task),
        max_model_len=max_model_len,
        kv_cache_gib=0.25,
    )
    worker.client = await WorkerClient.launch(
        config, worker, zygote=zygote, log_path=log, timeout_s=START_S
    )
    try:
        await worker.ready()
        yield worker
    finally:
        ended = await worker.client.stop(grace_s=20)
    assert ended.code == 0, ended.reason


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm2(
    vllm_zygote: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmWorker]:
    log = tmp_path_factory.mktemp("smollm2") / "worker.log"
    async with vllm_worker(vllm_zygote, "smollm2-135m", log, 512) as worker:
        yield worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm(
    vllm_zygote: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmWorker]:
    log = tmp_path_factory.mktemp("minilm") / "worker.log"
    async with vllm_worker(vllm_zygote, "minilm", log, 256) as worker:
        yield worker
