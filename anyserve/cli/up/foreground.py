"""The foreground of a running cluster: shows what happens, and turns Ctrl-C into an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import time
from dataclasses import dataclass
from typing import Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.cli.up.live import Display, display_for
from anyserve.cli.up.options import UpOptions
from anyserve.cli.up.screen import PLAIN, TUI, Screen
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
from anyserve.telemetry.thinning import LIMIT_PER_S

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
        self._wants_screen = options.ui == TUI
        # Programs were promised every event; people read no more than can be told.
        self._limit_per_s = math.inf if options.ui == "json" else LIMIT_PER_S
        self._display: Display = display_for(session, options.ui, config.cluster)
        self._steps = Steps(session.diagnostics, quiet=self._quiet)
        self._supervisor: SupervisorProcess | None = None
        self._source: LiveSource | None = None
        self._showing: asyncio.Task[None] | None = None
        self._screen: Screen | None = None
        self._screening: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._over = False
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
            ended = await self._follow(self._supervisor)
            await self._leave_screen(ended)
            return ended
        finally:
            self._steps.close()
            await self._close_screen()
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
                case Ready() if self._is_left_to_serve:
                    await self._on_progress(said)
                    await supervisor.release()
                    return Ended(ExitCode.OK, played=False, kept=True)
                case Exit(code=code, error=error):
                    ended = Ended(self._signal_code or code, self._played, error=error)
                case _:
                    await self._on_progress(said)
        return ended

    @property
    def _is_left_to_serve(self) -> bool:
        """Whether there is no traffic to wait for, and the cluster is to live on without us."""
        return self._config.plan_path is None and self._config.keep and self._signal_code is None

    async def _on_progress(self, said: AnyProgress) -> None:
        match said:
            case Step(name=name, state=state):
                self._steps.step(said)
                if name == _BROKER_STEP and state is StepState.OK:
                    await self._start_showing()
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

    # --- showing -------------------------------------------------------------------------------

    async def _start_showing(self) -> None:
        if self._wants_screen:
            await self._open_screen()
        else:
            await self._show_lines()

    async def _open_screen(self) -> None:
        name, owned = self._config.cluster.name, not self._config.keep
        self._screen = Screen(self._session, name, owned=owned)
        self._steps.hold()
        try:
            await self._screen.open()
        except OSError as error:
            self._screen = None
            self._steps.release()
            await self._go_on_plainly(f"the screen could not be opened: {error}")
            return
        self._screening = asyncio.create_task(self._watch_screen(self._screen), name="screen")

    async def _watch_screen(self, screen: Screen) -> None:
        code = await screen.wait()
        self._screen = None
        self._steps.release()
        if self._over:
            return
        if code == ExitCode.OK and self._config.keep:
            await self._go_on_plainly("the screen is closed, the run goes on")
        elif code in {ExitCode.OK, ExitCode.INTERRUPTED}:
            if not self._signals:  # Ctrl-C may have reached us as a signal, too
                self._on_signal(signal.SIGINT)
            await self._go_on_plainly("")
        elif not self._signals:
            text = f"the screen ended by itself (exit code {code}); the run goes on"
            await self._go_on_plainly(text)
        else:
            await self._go_on_plainly("")

    async def _go_on_plainly(self, why: str) -> None:
        if why:
            self._steps.notice(why)
        self._display = display_for(
            self._session, PLAIN, self._config.cluster, since_ns=time.monotonic_ns()
        )
        await self._show_lines()

    async def _leave_screen(self, ended: Ended) -> None:
        """The person may look at a run that has ended as long as they like; not at a failure."""
        self._over = True
        if self._screening is None:
            return
        if ended.error is not None or not ended.played or self._signals:
            await self._close_screen()
        await self._screening

    async def _close_screen(self) -> None:
        if self._screen is not None:
            await self._screen.close()
        if self._screening is not None:
            await self._screening

    async def _show_lines(self) -> None:
        """Listen to the cluster's events; a run goes on without its display."""
        store = ClusterStore(state_dir(self._session.environ))
        try:
            source = LiveSource(
                store.find(self._config.cluster.name),
                limit_per_s=self._limit_per_s,
                follow_end=False,
            )
            await source.start()
        except AnyServeError as error:
            if not self._signals:  # else it may be gone already
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
        if self._over:
            self._closing = asyncio.ensure_future(self._close_screen())
            return
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._screen is not None:
            self._closing = asyncio.ensure_future(self._close_screen())
        if self._quiet:
            return
        if self._signals == 1:
            waiting = self._display.waiting_for()
            text = f"stopping, waits for {waiting}" if waiting else "stopping"
            self._steps.notice(f"{text}; Ctrl-C again to kill")
        else:
            self._steps.notice("killing everything")
