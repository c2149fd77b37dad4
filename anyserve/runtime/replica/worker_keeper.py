"""Keeps one worker alive: launches it, notices when it hangs or dies, and launches another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anyserve.core.events import AnyEvent, WorkerChanged
from anyserve.core.inputs import Delta, Stepped, WorkerDied, WorkerReady
from anyserve.errors import AnyServeError
from anyserve.runtime.engines.base import EngineConfig, EngineInfo, EngineRequest
from anyserve.runtime.handlers.words import AppConfig, CallEnded, CallPiece, Handle
from anyserve.runtime.replica.translate import cancelled_delta, core_deltas, failed_delta
from anyserve.runtime.worker import ipc
from anyserve.runtime.worker.client import HandlerListener, WorkerClient, WorkerExit

_LOG = logging.getLogger(__name__)

WorkerInput = Stepped | WorkerReady | WorkerDied


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """When a worker counts as hung, and how often it is started again; all in seconds.

    A step may take `step_s`, or five times the longest step so far where that is more. A ready
    worker that says nothing for `silence_s` is stopped too: its heartbeat has a thread of its own.
    """

    first_backoff_s: float = 0.5
    longest_backoff_s: float = 10.0
    exits: int = 3
    within_s: float = 60.0
    step_s: float = 30.0
    silence_s: float = 10.0
    check_s: float = 0.5


class WorkerKeeper:
    """The worker of one replica, in all its lives.

    Args:
        replica: its id, for events.
        config: what the worker builds.
        feed: takes what the worker reports, in core's words.
        emit: takes events.
        zygote: the socket of the process that forks workers; None starts each anew.
        app: user code that the worker runs beside its engine; `handlers` hears what it says.
    """

    def __init__(
        self,
        replica: str,
        config: EngineConfig,
        *,
        feed: Callable[[WorkerInput], None],
        emit: Callable[[AnyEvent], None],
        zygote: Path | None,
        log_path: Path | None,
        env: Mapping[str, str] | None = None,
        app: AppConfig | None = None,
        handlers: HandlerListener | None = None,
        rules: WorkerRules | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replica = replica
        self._config = config
        self._feed = feed
        self._emit = emit
        self._zygote = zygote
        self._log_path = log_path
        self._env = env
        self._app = app
        self._handlers = handlers
        self._changing = False
        """The worker ends because another one is wanted: no death that counts."""
        self._rules = rules or WorkerRules()
        self._now_s = now_s
        self._client: WorkerClient | None = None
        self._ready = False
        self._step_started_ns: int | None = None
        self._heard_s = 0.0
        self._longest_step_s = 0.0
        self._exits: deque[float] = deque(maxlen=self._rules.exits)
        self.given_up: AnyServeError | None = None

    async def run(self) -> None:
        """Keep a worker until cancelled, or until it has died too often (`given_up` says why)."""
        backoff_s = self._rules.first_backoff_s
        while True:
            began_s = self._now_s()
            ended = await self._one_life()
            if self._changing:
                self._changing = False
                self._feed(WorkerDied(reason=ended))
                continue
            self._exits.append(self._now_s())
            final = self._died_too_often()
            self._feed(WorkerDied(reason=ended, final=final))
            if final:
                text = f"the worker of {self._replica} died {self._rules.exits} times: {ended}"
                self.given_up = AnyServeError(text, code="worker_died")
                return
            if self._now_s() - began_s > self._rules.within_s:
                backoff_s = self._rules.first_backoff_s
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, self._rules.longest_backoff_s)

    def _died_too_often(self) -> bool:
        full = len(self._exits) == self._rules.exits
        return full and self._exits[-1] - self._exits[0] < self._rules.within_s

    async def _one_life(self) -> str:
        """Launch a worker and wait for its end; the reason in words."""
        self._ready = False
        try:
            client = await WorkerClient.launch(
                self._config,
                self,
                zygote=self._zygote,
                env=self._env,
                log_path=self._log_path,
                app=self._app,
                handlers=self._handlers,
            )
        except AnyServeError as error:
            self._say("exited", detail=error.message)
            return error.message
        self._client = client
        self._heard_s = self._now_s()
        self._say("started", pid=client.pid)
        watch = asyncio.create_task(self._watch(client), name="worker-watch")
        try:
            ended = await client.wait()
        except asyncio.CancelledError:
            await client.stop()
            raise
        finally:
            watch.cancel()
            self._client = None
        self._say("exited", pid=client.pid, detail=ended.reason)
        return ended.reason

    async def _watch(self, client: WorkerClient) -> None:
        while True:
            await asyncio.sleep(self._rules.check_s)
            hung = self._why_hung()
            if hung:
                self._say("hung", pid=client.pid, detail=hung)
                client.kill()
                return

    def _why_hung(self) -> str:
        if not self._ready:
            return ""
        silent_s = self._now_s() - self._heard_s
        if silent_s > self._rules.silence_s:
            return f"no heartbeat for {silent_s:.1f} s"
        if self._step_started_ns is None:
            return ""
        step_s = time.monotonic() - self._step_started_ns / 1e9
        limit_s = max(self._rules.step_s, 5 * self._longest_step_s)
        return f"a step takes {step_s:.1f} s" if step_s > limit_s else ""

    # --- what the replica wants ------------------------------------------------------------------

    def submit(self, request: EngineRequest) -> None:
        """Hand an attempt to the worker; dropped where there is none (its death was told)."""
        if self._client is not None:
            self._client.submit(request)

    def handle(self, request: Handle) -> None:
        """Hand an attempt to its handler; dropped where there is no worker."""
        if self._client is not None:
            self._client.handle(request)

    def answer(self, word: CallPiece | CallEnded) -> None:
        """Pass on what came of a handler's call; dropped where there is no worker."""
        if self._client is not None:
            self._client.answer(word)

    async def change(self, why: str) -> None:
        """Replace the worker by a new one; what runs has a moment to end, and is lost otherwise."""
        client = self._client
        if client is not None:
            self._changing = True
            self._say("reloading", pid=client.pid, detail=why)
            await client.stop()

    def say(self, state: str, detail: str) -> None:
        """Say something of the worker as an event."""
        self._say(state, detail=detail)

    def cancel(self, key: str) -> None:
        """Have the worker forget an attempt."""
        if self._client is not None:
            self._client.cancel(key)

    def slow(self, factor: float) -> None:
        """Let steps take `factor` times as long, in this life of the worker."""
        if self._client is not None:
            self._client.slow(factor)

    # --- what the worker reports -----------------------------------------------------------------

    def on_loading(self, stage: str, fraction: float) -> None:
        """Loading has come this far."""
        self._say("loading", detail=f"{stage} {fraction:.0%}")

    def on_ready(self, info: EngineInfo, load_ms: float) -> None:
        """The engine takes requests."""
        self._ready = True
        self._heard_s = self._now_s()
        engine = f"{info.kind.value} {info.version}".strip()
        pid = self._client.pid if self._client is not None else 0
        self._say("ready", pid=pid, detail=engine, ready_s=round(load_ms / 1000, 3))
        self._feed(WorkerReady(max_tokens=info.max_model_len, engine=engine))

    def on_frame(self, frame: ipc.StepFrame) -> None:
        """A step ended."""
        self._heard_s = self._now_s()
        self._longest_step_s = max(self._longest_step_s, (frame.ended_ns - frame.started_ns) / 1e9)
        self._feed(Stepped(deltas=core_deltas(frame.deltas), kv_usage=frame.stats.kv_usage))

    def on_failed(self, failed: ipc.Failed) -> None:
        """One request cannot be served."""
        self._feed(Stepped(deltas=[failed_delta(failed)]))

    def on_cancelled(self, keys: list[str]) -> None:
        """These attempts have left the engine."""
        deltas: list[Delta] = [cancelled_delta(key) for key in keys]
        self._feed(Stepped(deltas=deltas))

    def on_heartbeat(self, beat: ipc.Heartbeat) -> None:
        """The process lives."""
        self._heard_s = self._now_s()
        self._step_started_ns = beat.step_started_ns

    def on_exit(self, ended: WorkerExit) -> None:
        """The process is gone; `_one_life` has noticed."""
        _LOG.info("worker of %s: %s", self._replica, ended.reason)

    def _say(
        self, state: str, *, pid: int = 0, detail: str = "", ready_s: float | None = None
    ) -> None:
        self._emit(
            WorkerChanged(
                replica=self._replica, state=state, pid=pid, detail=detail, ready_s=ready_s
            )
        )
