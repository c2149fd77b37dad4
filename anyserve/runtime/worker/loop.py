"""The step loop: commands in at step boundaries, one frame out per step."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from anyserve.runtime.engines.base import (
    Engine,
    EngineRequest,
    EngineRequestError,
    FinishReason,
)
from anyserve.runtime.handlers.words import CallEnded, CallPiece, Handle
from anyserve.runtime.worker import ipc

_log = logging.getLogger(__name__)
_NS_PER_S: Final = 1e9


class Inbox:
    """Commands on their way from the reader thread to the step loop."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._commands: deque[tuple[int, ipc.Command]] = deque()
        self._changed = threading.Condition()
        self._clock_ns = clock_ns

    def put(self, command: ipc.Command) -> None:
        """Add a command and wake the loop."""
        with self._changed:
            self._commands.append((self._clock_ns(), command))
            self._changed.notify()

    def drain(self, *, wait: bool) -> list[tuple[int, ipc.Command]]:
        """Take all commands with their arrival times; `wait` blocks until there is one."""
        with self._changed:
            while wait and not self._commands:
                self._changed.wait()
            taken = list(self._commands)
            self._commands.clear()
            return taken

    def sleep(self, seconds: float) -> None:
        """Pause the loop, cut short by the next command."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._commands), timeout=seconds)


class StepLoop:
    """Drives one engine from its commands. `run` returns when told to stop."""

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        send: Callable[[msgspec.Struct], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._send = send
        self._clock_ns = clock_ns
        self._held: set[str] = set()
        self._intakes: list[ipc.Intake] = []
        self._cancelled: list[str] = []
        self._slow_until_ns = 0
        self._slow_factor = 1.0
        self._steps = 0
        self._stopping = False
        self.step_started_ns: int | None = None
        """Read by the heartbeat thread."""

    @property
    def held(self) -> int:
        """Requests in the engine."""
        return len(self._held)

    def run(self) -> None:
        """Step while there is work, wait for commands while there is none."""
        while True:
            idle = not self._engine.has_work
            for received_ns, command in self._inbox.drain(wait=idle):
                self._obey(command, received_ns)
            if self._stopping:
                return
            self._report_cancelled()
            if self._slowed_down():
                continue
            if self._engine.has_work:
                self._step()

    def _obey(self, command: ipc.Command, received_ns: int) -> None:
        match command:
            case ipc.Submit(request):
                self._submit(request, received_ns)
            case ipc.Cancel(key):
                self._held.discard(key)
                self._engine.cancel(key)
                self._cancelled.append(key)
            case ipc.Slow(factor):
                self._slow_factor = max(1.0, factor)
                self._slow_until_ns = 0
            case ipc.Ping(number):
                self._send(ipc.Pong(number))
            case ipc.Stop():
                self._stopping = True
            case ipc.Start():
                _log.warning("a second start is ignored")
            case Handle(key=key):
                self._send(ipc.Failed(key, "this worker runs no handlers", "invalid_request"))
            case CallPiece() | CallEnded():
                _log.warning("an answer to a call that nobody made")

    def _submit(self, request: EngineRequest, received_ns: int) -> None:
        if request.key in self._held:
            _log.warning("request %s was submitted twice", request.key)
            return
        try:
            self._engine.submit(request)
        except EngineRequestError as error:
            self._send(ipc.Failed(request.key, error.message, error.code))
            return
        except Exception as error:  # noqa: BLE001 - one request's boundary: others go on
            _log.exception("request %s", request.key)
            message = f"{type(error).__name__}: {error}"
            self._send(ipc.Failed(request.key, message, "engine_error"))
            return
        self._held.add(request.key)
        self._intakes.append(ipc.Intake(request.key, received_ns, self._clock_ns()))

    def _step(self) -> None:
        started_ns = self.step_started_ns = self._clock_ns()
        output = self._engine.step()
        ended_ns = self._clock_ns()
        self.step_started_ns = None
        self._steps += 1
        for delta in output.deltas:
            if delta.done or delta.finish is FinishReason.ERROR:
                self._held.discard(delta.key)
        frame = ipc.StepFrame(
            self._steps, started_ns, ended_ns, output.deltas, output.stats, self._intakes
        )
        self._intakes = []
        self._send(frame)
        if self._slow_factor > 1.0:
            pause_ns = (ended_ns - started_ns) * (self._slow_factor - 1.0)
            self._slow_until_ns = ended_ns + int(pause_ns)

    def _slowed_down(self) -> bool:
        """Pause until a slowed step would have ended; a command may cut the pause short."""
        left_ns = self._slow_until_ns - self._clock_ns()
        if left_ns <= 0:
            return False
        self._inbox.sleep(left_ns / _NS_PER_S)
        return True

    def _report_cancelled(self) -> None:
        if self._cancelled:
            self._send(ipc.Cancelled(self._cancelled))
            self._cancelled = []
