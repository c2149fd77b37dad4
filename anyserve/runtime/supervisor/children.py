"""Child processes with lifelines, logs, readiness, restarts and a sure end. Knows no cluster.

A child is the leader of its own process group within the supervisor's session. That is on
purpose: when the supervisor dies, the kernel sends SIGHUP and SIGCONT to such a group if it holds
stopped processes, so not even a process that a fault has stopped survives as an orphan. (One in a
session of its own would.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

import psutil

from anyserve.errors import (
    AnyServeError,
    MissingDependencyError,
    StartError,
    TimeLimitError,
    UsageError,
)
from anyserve.runtime.lifeline import Lifeline
from anyserve.runtime.logs import ErrorReport, find_error, read_tail
from anyserve.runtime.process import READY_ENV
from anyserve.runtime.supervisor.restarts import RestartPolicy, Restarts

_LOG = logging.getLogger(__name__)
_NOT_EXECUTED: Final = 127
_ERRORS: Final[Mapping[int, type[AnyServeError]]] = {
    kind.exit_code: kind
    for kind in (UsageError, StartError, TimeLimitError, MissingDependencyError)
}


class ChildState(Enum):
    """Where a child is in its life."""

    NEW = "new"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    STOPPED = "stopped"
    """It ended, and was not to be restarted."""
    GAVE_UP = "gave_up"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start one child. `prepare` is called for each life and returns its command.

    `restart` None: it is never started again. `grace_s`: from SIGTERM to SIGKILL.
    """

    name: str
    prepare: Callable[[], Sequence[str]]
    log_path: Path
    restart: RestartPolicy | None = None
    grace_s: float = 5.0
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How one life of a child ended. `exit_code` is minus the signal's number where one killed it.

    `restart_in_s` None: it stays down; `ordered`: somebody wanted it to end.
    """

    name: str
    pid: int
    exit_code: int
    lived_s: float
    ordered: bool
    was_ready: bool
    restart_in_s: float | None
    error: ErrorReport | None
    tail: tuple[str, ...]

    @property
    def cause(self) -> str:
        """In words: `exit code 3`, `SIGKILL`."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:
            return f"signal {-self.exit_code}"


OnExit = Callable[[ExitReport], None]


@dataclass(slots=True)
class _Life:
    """One process of a child."""

    process: asyncio.subprocess.Process
    lifeline: Lifeline
    started_s: float
    log_start: int
    ready_fd: int
    created_s: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ordered: bool = False


class Child:
    """One supervised process, over all its lives.

    `on_start` and `on_exit` are called in the loop when a life begins and ends.
    """

    def __init__(
        self,
        spec: ChildSpec,
        on_exit: OnExit,
        *,
        on_start: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.state = ChildState.NEW
        self.lives = 0
        self.last_exit: ExitReport | None = None
        self._on_exit = on_exit
        self._on_start = on_start
        self._clock = clock
        self._restarts = Restarts(spec.restart) if spec.restart is not None else None
        self._life: _Life | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._down_s: float | None = None
        self._hurry = asyncio.Event()

    @property
    def name(self) -> str:
        """What the spec calls it."""
        return self.spec.name

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._life.process.pid if self._life is not None else None

    @property
    def created_s(self) -> float | None:
        """When the running process was made, as psutil tells it: pid and this name a process."""
        return self._life.created_s if self._life is not None else None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.lives - 1)

    async def start(self) -> None:
        """Start its first life.

        Raises:
            StartError: the command cannot be executed.
        """
        life = await self._spawn()
        self._keeper = asyncio.create_task(self._keep(life), name=f"keep {self.name}")

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until the running life has reported that it is ready.

        Raises:
            AnyServeError: it ended before, with the error it reported.
            StartError: it took longer than `timeout_s`.
        """
        life = self._life
        if life is None:
            raise self._failed_start()
        await self.wait_for(life.ready.wait(), timeout_s)

    async def wait_for(self, condition: Awaitable[object], timeout_s: float) -> None:
        """Wait for what the running life must bring about; raises like `wait_ready`."""
        wanted = asyncio.ensure_future(condition)
        life = self._life
        if life is None:
            wanted.cancel()
            raise self._failed_start()
        ended = asyncio.ensure_future(life.ended.wait())
        try:
            await asyncio.wait(
                {wanted, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if wanted.done():
                wanted.result()
            elif ended.done():
                raise self._failed_start()
            else:
                raise self._too_slow(life, timeout_s)
        finally:
            wanted.cancel()
            ended.cancel()

    async def wait_ended(self) -> None:
        """Wait until it is down for good: stopped or given up."""
        if self._keeper is not None:
            await asyncio.shield(self._keeper)

    def signal(self, number: signal.Signals, *, ordered: bool = True) -> bool:
        """Send a signal to the process alone; False where none runs.

        `ordered`: an exit that follows is not held against it.
        """
        life = self._life
        if life is None:
            return False
        life.ordered = life.ordered or ordered
        with contextlib.suppress(ProcessLookupError):
            life.process.send_signal(number)
            return True
        return False

    def kill(self) -> None:
        """End it and its group for good, now; `wait_ended` returns soon."""
        self._stopping = True
        self._hurry.set()
        if self._life is not None:
            self._life.ordered = True
            _signal_group(self._life.process.pid, signal.SIGKILL)

    async def stop(self, grace_s: float | None = None) -> None:
        """End it for good: SIGTERM, and SIGKILL for its group after the grace. Safe to repeat.

        Returns when the process is gone; `kill` may be called meanwhile. If this task is
        cancelled, the group is killed at once.
        """
        self._stopping = True
        self._hurry.set()
        await self._terminate(self.spec.grace_s if grace_s is None else grace_s)
        await self.wait_ended()

    async def restart(self) -> None:
        """End the running life in order and start the next one at once."""
        if self._life is None:
            self._hurry.set()
            if self._keeper is None or self._keeper.done():
                await self.start()
            return
        self._down_s = 0.0
        await self._terminate(self.spec.grace_s)

    def crash(self, down_s: float) -> bool:
        """SIGKILL the running life; the next one begins after `down_s`. False where none runs."""
        if self._life is None:
            return False
        self._down_s = down_s
        self._life.ordered = True
        _signal_group(self._life.process.pid, signal.SIGKILL)
        return True

    async def _terminate(self, grace_s: float) -> None:
        life = self._life
        if life is None:
            return
        life.ordered = True
        pid = life.process.pid
        try:
            _signal_group(pid, signal.SIGTERM, leader_only=True)
            _signal_group(pid, signal.SIGCONT)  # a stopped process would not hear the other
            async with asyncio.timeout(grace_s):
                await life.ended.wait()
        except TimeoutError:
            _LOG.warning("%s did not end within %.1f s: SIGKILL", self.name, grace_s)
            _signal_group(pid, signal.SIGKILL)
            await life.ended.wait()
        except asyncio.CancelledError:
            _signal_group(pid, signal.SIGKILL)
            raise

    async def _keep(self, life: _Life | None) -> None:
        """Live through all lives of this child."""
        while True:
            delay_s = await self._outlive(life) if life is not None else self._spawn_failed()
            if delay_s is None:
                return
            self.state = ChildState.BACKING_OFF
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._hurry.wait()
            self._hurry.clear()
            if self._stopping:
                self.state = ChildState.STOPPED
                return
            try:
                life = await self._spawn()
            except StartError:
                _LOG.exception("cannot start %s again", self.name)
                life = None

    async def _outlive(self, life: _Life) -> float | None:
        code = await life.process.wait()
        _signal_group(life.process.pid, signal.SIGKILL)  # whatever it has left behind
        lived_s = self._clock() - life.started_s
        delay_s = self._decide(lived_s, ordered=life.ordered)
        tail = read_tail(self.spec.log_path, start=life.log_start)
        report = ExitReport(
            name=self.name,
            pid=life.process.pid,
            exit_code=code,
            lived_s=lived_s,
            ordered=life.ordered,
            was_ready=life.ready.is_set(),
            restart_in_s=delay_s,
            error=find_error(tail),
            tail=tuple(line for line in tail if not line.startswith('{"error"')),
        )
        self._life = None
        self._close(life)
        self.last_exit = report
        life.ended.set()
        self._on_exit(report)
        return delay_s

    def _decide(self, lived_s: float, *, ordered: bool) -> float | None:
        """Seconds until the next life; None: there is none."""
        if self._down_s is not None and not self._stopping:
            down_s, self._down_s = self._down_s, None
            return down_s
        if self._stopping or self._restarts is None:
            self.state = ChildState.STOPPED
            return None
        delay_s = self._restarts.after_exit(self._clock(), lived_s, ordered=ordered)
        if delay_s is None:
            self.state = ChildState.GAVE_UP
        return delay_s

    def _spawn_failed(self) -> float | None:
        delay_s = self._decide(0.0, ordered=False)
        self._on_exit(ExitReport(self.name, 0, _NOT_EXECUTED, 0.0, False, False, delay_s, None, ()))
        return delay_s

    async def _spawn(self) -> _Life:
        command = self.spec.prepare()
        lifeline = Lifeline()
        ready_read, ready_write = os.pipe()
        try:
            self.spec.log_path.parent.mkdir(parents=True, exist_ok=True)
            with self.spec.log_path.open("ab") as log:
                log_start = log.seek(0, 2)
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(*lifeline.pass_fds, ready_write),
                    env={
                        **os.environ,
                        **self.spec.env,
                        **lifeline.env,
                        READY_ENV: str(ready_write),
                    },
                    process_group=0,
                )
        except BaseException as error:
            lifeline.close()
            os.close(ready_read)
            if not isinstance(error, OSError):
                raise
            message = f"{self.name} could not be started: {error.strerror or error}"
            raise StartError(message, code="spawn_failed") from None
        finally:
            os.close(ready_write)
        return self._begin(process, lifeline, log_start, ready_read)

    def _begin(
        self,
        process: asyncio.subprocess.Process,
        lifeline: Lifeline,
        log_start: int,
        ready_fd: int,
    ) -> _Life:
        created_s = _created_s(process.pid)
        life = _Life(process, lifeline, self._clock(), log_start, ready_fd, created_s)
        asyncio.get_running_loop().add_reader(ready_fd, self._read_ready, life)
        self._life = life
        self.state = ChildState.RUNNING
        self.lives += 1
        if self._on_start is not None:
            self._on_start()
        if self._stopping:  # it was told to end while it began
            _signal_group(process.pid, signal.SIGKILL)
        return life

    def _read_ready(self, life: _Life) -> None:
        if os.read(life.ready_fd, 64):
            life.ready.set()
        else:
            asyncio.get_running_loop().remove_reader(life.ready_fd)

    def _close(self, life: _Life) -> None:
        # Readiness may have been said in the same moment in which the process ended.
        asyncio.get_running_loop().remove_reader(life.ready_fd)
        os.close(life.ready_fd)
        life.lifeline.close()

    def _failed_start(self) -> AnyServeError:
        report = self.last_exit
        if report is None:
            return StartError(f"{self.name} does not run", code="not_running")
        return start_error(report, self.spec.log_path)

    def _too_slow(self, life: _Life, timeout_s: float) -> StartError:
        tail = read_tail(self.spec.log_path, start=life.log_start)
        head = f"{self.name} was not ready after {timeout_s:g} s"
        return StartError(_with_log(head, tail), code="start_timeout", hint=_log_hint(self.spec))


def start_error(report: ExitReport, log_path: Path) -> AnyServeError:
    """Why a child did not come up: what it reported itself, else its last log lines."""
    error = report.error
    if error is not None and error.code != "internal":
        kind = _ERRORS.get(error.exit_code, StartError)
        return kind(f"{report.name}: {error.message}", code=error.code, hint=error.hint)
    head = f"{report.name} ended at its start ({report.cause})"
    if error is not None:
        head = f"{head}: {error.message}"
    text = _with_log(head, report.tail)
    return StartError(text, code="process_ended", hint=f"its whole log: {log_path}")


def _with_log(head: str, tail: Sequence[str]) -> str:
    return "\n  ".join((head, *tail))


def _log_hint(spec: ChildSpec) -> str:
    return f"its whole log: {spec.log_path}"


def _signal_group(pid: int, number: signal.Signals, *, leader_only: bool = False) -> None:
    # Only between a process's start and its reaping, or at once after it: pids are used again.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if leader_only:
            os.kill(pid, number)
        else:
            os.killpg(pid, number)


def _created_s(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # it is already gone; the keeper will say so
        return 0.0
