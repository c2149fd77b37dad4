"""`anyserve worker`: one engine alone, one request on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from anyserve.cli.diagnostics import Diagnostics, ExitCode
from anyserve.cli.nodes.single import load_cluster
from anyserve.cli.session import Session
from anyserve.core.spec import ReplicaSpec
from anyserve.errors import StartError, UsageError
from anyserve.runtime.engines.base import EngineInfo, EngineRequest, Sampling, Task
from anyserve.runtime.models.codec import Codec, load_tokenizer
from anyserve.runtime.replica.process import make_engine_config, own_devices
from anyserve.runtime.worker import ipc
from anyserve.runtime.worker.client import WorkerClient, WorkerExit
from anyserve.workload.problems import nearest

_PROMPT = "Water boils at"
_TOKENS = 16
_LOAD_S = 300.0


def run_worker(session: Session, scenario: Path, replica_id: str, overrides: Sequence[str]) -> int:
    """Load the replica's engine, run one request, print the answer.

    Raises:
        AnyServeError: the scenario is not valid, or the engine does not load.
    """
    cluster = load_cluster(scenario, overrides)
    replica = next((one for one in cluster.replicas if one.id == replica_id), None)
    if replica is None:
        hint = nearest(replica_id, [one.id for one in cluster.replicas])
        message = f"{scenario} has no replica {replica_id}"
        raise UsageError(message, code="no_such_replica", hint=hint)
    if replica.engine.kind == "none":
        message = f"{replica_id} runs an app and has no engine that could be tried"
        hint = "start the scenario, and ask it with anyserve send --json-payload"
        raise UsageError(message, code="usage", hint=hint)
    return asyncio.run(_try(session, replica))


async def _try(session: Session, replica: ReplicaSpec) -> int:
    config = make_engine_config(replica, own_devices(replica))
    codec = Codec(load_tokenizer(replica.engine))
    listener = _Listener(session.diagnostics)
    worker = await WorkerClient.launch(config, listener)
    try:
        async with asyncio.timeout(_LOAD_S):
            info = await listener.ready
            say = session.diagnostics.say
            say(f"{info.kind.value} on {info.device}: {info.max_model_len} tokens of context")
            begun_s = time.monotonic()
            worker.submit(
                EngineRequest(
                    key="try",
                    prompt_ids=codec.encode(_PROMPT, chat=False),
                    task=Task(replica.engine.task),
                    sampling=Sampling(max_tokens=_TOKENS, temperature=0.0),
                )
            )
            tokens, numbers = await listener.answer
    finally:
        await worker.stop()
    text = f"{_PROMPT}{codec.push(tokens)}{codec.finish()}"
    session.output.line(f"a vector of {numbers} numbers" if numbers else text)
    say(f"{len(tokens)} tokens in {time.monotonic() - begun_s:.2f} s")
    return ExitCode.OK


class _Listener:
    """Waits for one engine and one answer."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[EngineInfo] = loop.create_future()
        self.answer: asyncio.Future[tuple[list[int], int]] = loop.create_future()
        self._diagnostics = diagnostics
        self._tokens: list[int] = []
        self._stage = ""

    def on_loading(self, stage: str, fraction: float) -> None:
        if stage != self._stage:
            self._stage = stage
            self._diagnostics.say(f"loading: {stage} {fraction:.0%}")

    def on_ready(self, info: EngineInfo, load_ms: float) -> None:
        self._diagnostics.say(f"ready after {load_ms / 1e3:.1f} s")
        self.ready.set_result(info)

    def on_frame(self, frame: ipc.StepFrame) -> None:
        for delta in frame.deltas:
            self._tokens += delta.token_ids
            if delta.error is not None:
                self._fail(delta.error)
            elif delta.done and not self.answer.done():
                self.answer.set_result((self._tokens, len(delta.embedding or ())))

    def on_failed(self, failed: ipc.Failed) -> None:
        self._fail(failed.message)

    def on_cancelled(self, keys: list[str]) -> None:
        """Nothing is cancelled here."""

    def on_heartbeat(self, beat: ipc.Heartbeat) -> None:
        """`asyncio.timeout` watches instead."""

    def on_exit(self, ended: WorkerExit) -> None:
        self._fail(f"the worker ended: {ended.reason}")

    def _fail(self, message: str) -> None:
        error = StartError(message, code="worker_died")
        for future in (self.ready, self.answer):
            if not future.done():
                future.set_exception(error)
                break
