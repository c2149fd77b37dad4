"""The foreground of a running cluster: shows what happens, and turns Ctrl-C into an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from typing import Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.cli.up.live import Display, display_for
from anyserve.cli.up.options import UpOptions
from anyserve.cli.up.steps import Steps
from anyserve.errors import AnyServeError
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.runtime.logs import ErrorReport
from anyserve.runtime.observer import LiveSource
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.foreground import SupervisorProcess
from anyserve.runtime.supervisor.progress import (
    AnyProgress,
    Exit,
    Notice,
    Ready,
    Step,
    StepState,
    TrafficEnded,
)

_BROKER_STEP: Final = "broker"
_SIGNAL_CODES: Final = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How the cluster's time in the foreground ended.

    `code` 0: the traffic was played. `played`: the traffic began at all. `kept`: the cluster lives
    on without us.
    """

    code: int
    played: bool
    kept: bool = False
    error: ErrorReport | None = None


class Foreground:
    """Runs one supervisor to its end, or until its cluster can be left alone."""

    def __init__(self, session: Session, options: UpOptions, config: SupervisorConfig) -> None:
        self._session = session
        self._config = config
        self._quiet = options.ui == "none"
        self._display: Display = display_for(session, options.ui, config.cluster)
        self._steps = Steps(session.diagnostics, quiet=self._quiet)
        self._supervisor: SupervisorProcess | None = None
        self._source: LiveSource | None = None
        self._showing: asyncio.Task[None] | None = None
        self._signals = 0
        self._signal_code: int | None = None
        self._played = False

    async def run(self) -> Ended:
        """Start the cluster, show it, and return how it ended.

        Raises:
            StartError: the supervisor cannot be started.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNAL_CODES:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            self._supervisor = await SupervisorProcess.launch(self._config)
            return await self._follow(self._supervisor)
        finally:
            self._steps.close()
            await self._stop_showing()
            for number in _SIGNAL_CODES:
                loop.remove_signal_handler(number)

    async def _follow(self, supervisor: SupervisorProcess) -> Ended:
        ended = Ended(ExitCode.INTERNAL, played=False)
        async for said in supervisor.progress():
            match said:
                case TrafficEnded(kept=True) if self._signal_code is None:
                    await supervisor.release()
                    return Ended(ExitCode.OK, played=True, kept=True)
                case Exit(code=code, error=error):
                    ended = Ended(self._signal_code or code, self._played, error=error)
                case _:
                    await self._on_progress(said)
        return ended

    async def _on_progress(self, said: AnyProgress) -> None:
        match said:
            case Step(name=name, state=state):
                if name == _BROKER_STEP and state is StepState.OK:
                    await self._start_showing()
                self._steps.step(said)
            case Ready():
                self._played = True
                self._steps.ready(said)
            case Notice(text=text):
                self._steps.notice(text)
            case TrafficEnded():
                self._display.traffic_ended()
                self._steps.closing()
            case _:
                return

    async def _start_showing(self) -> None:
        """Listen to the cluster's events; a run goes on without its display."""
        store = ClusterStore(state_dir(self._session.environ))
        try:
            source = LiveSource(store.find(self._config.cluster.name))
            await source.start()
        except AnyServeError as error:
            self._steps.notice(f"events cannot be shown: {error.message}")
            return
        self._source = source
        self._showing = asyncio.create_task(self._display.show(source), name="display")

    async def _stop_showing(self) -> None:
        if self._source is not None:
            await self._source.close()
        if self._showing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._showing

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        self._signal_code = self._signal_code or _SIGNAL_CODES[number]
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._quiet:
            return
        if self._signals == 1:
            waiting = self._display.waiting_for()
            text = f"stopping, waits for {waiting}" if waiting else "stopping"
            self._steps.notice(f"{text}; Ctrl-C again to kill")
        else:
            self._steps.notice("killing everything")
