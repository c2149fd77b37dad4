"""A worker with real vLLM in it, on the CPU or a GPU, forked from a real zygote."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from anyserve.core.messages import Offer
from anyserve.core.spec import EngineSpec, ReplicaSpec
from anyserve.runtime.engines.base import Delta, EngineInfo, EngineRequest
from anyserve.runtime.models import ResolvedModel, resolve_model
from anyserve.runtime.models.tokenizers import TextTokenizer
from anyserve.runtime.placing import place_engines
from anyserve.runtime.replica.process import make_engine_config
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


@contextmanager
def running_zygote(directory: Path) -> Iterator[Path]:
    """A zygote with vLLM imported; yields its socket."""
    path = directory / "z.sock"
    command = [sys.executable, "-m", "anyserve.runtime.worker.zygote", "--socket", str(path)]
    with (directory / "zygote.log").open("wb") as log:
        env = {**os.environ, "TMPDIR": str(directory)}  # vLLM leaves things behind in it
        process = subprocess.Popen([*command, "--preload", "vllm"], stderr=log, env=env)
        try:
            yield path
        finally:
            process.terminate()
            process.wait(10)


@asynccontextmanager
async def vllm_worker(
    zygote: Path, name: str, log: Path, max_model_len: int, *, gpus: float = 0.0
) -> AsyncIterator[VllmWorker]:
    """A ready worker with this model; `gpus` as a scenario asks for them."""
    model = resolve_model(name)
    worker = VllmWorker(model, TextTokenizer(Path(model.path)))
    spec = EngineSpec(
        kind="vllm",
        model=name,
        task=model.task.value,
        max_model_len=max_model_len,
        kv_cache_gib=0.25,
        gpus=gpus,
    )
    replica = ReplicaSpec(id="r", offers=(Offer(capability="decode"),), engine=spec)
    devices = place_engines([replica], os.environ).of("r")
    worker.client = await WorkerClient.launch(
        make_engine_config(replica, devices),
        worker,
        zygote=zygote,
        log_path=log,
        timeout_s=START_S,
    )
    try:
        await worker.ready()
        yield worker
    finally:
        ended = await worker.client.stop(grace_s=20)
    assert ended.code == 0, ended.reason
