"""Computing a simulation to its end: its events to the log, its progress to the terminal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from anyserve.cli.output import OutputClosed
from anyserve.cli.session import Session
from anyserve.cli.sim.prepare import PreparedSim
from anyserve.core.events import Envelope
from anyserve.sim.recorder import Enveloped, Recorder, Sample
from anyserve.sim.sampled_log import SampledLog
from anyserve.sim.simulation import Phase, Progress, Simulation
from anyserve.sim.watch import Watch
from anyserve.telemetry.log import EventLogWriter
from anyserve.telemetry.runs import RunDirectory
from anyserve.telemetry.tally import Tally

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_Show = Callable[[Progress], None]
ENTRIES: Final = 20_000
"""Computed between two looks at the terminal: some tens of milliseconds."""
LINES_S: Final = 15.0
"""Between two lines of progress, where there is no terminal to draw on."""


@dataclass(slots=True)
class Played:
    """How the computing went. `notes`: what the report should say of the run beside its figures."""

    wall_s: float = 0.0
    interrupted: bool = False
    tally: Tally | None = None
    """What all requests came to, where only a sample of them is in the log."""
    notes: list[str] = field(default_factory=list)


def play(
    session: Session, prepared: PreparedSim, run: RunDirectory, watch: Watch | None = None
) -> Played:
    """Compute the run, best within `no_collecting`; Ctrl-C ends it early, in order.

    Raises:
        StalledError: it cannot end.
    """
    played = Played()
    began_s = time.perf_counter()
    listener = _Listener(session) if prepared.options.ui == "json" else None
    with EventLogWriter(run.events) as log:
        sample = Sample(prepared.options.sample)
        recorder: Recorder = Enveloped(log.write if listener is None else listener.tee(log))
        if sample.share < 1.0:
            played.tally = Tally()
            recorder = SampledLog(recorder, sample, played.tally)
        simulation = Simulation(
            prepared.compiled,
            recorder,
            exact=prepared.options.exact,
            sample=sample,
            watch=watch,
            scenario_dir=prepared.scenario_dir,
        )
        with _progress(session, prepared) as show, _asked_to_stop() as stops:
            while not simulation.over:
                if stops and not played.interrupted:
                    played.interrupted = True
                    simulation.stop("stopped: interrupted")
                simulation.advance(ENTRIES)
                show(simulation.progress())
    played.wall_s = time.perf_counter() - began_s
    played.notes = notes_on(simulation)
    return played


def notes_on(simulation: Simulation) -> list[str]:
    """What a reader of the report should know: the cluster could not keep up, say."""
    notes = simulation.engine_notes()
    progress = simulation.progress()
    late_s = progress.now_s - progress.planned_s
    if progress.phase is Phase.OVER and late_s >= max(10.0, progress.planned_s / 2):
        late = f"the last request ended {late_s:.0f} s after the traffic"
        notes.append(f"the cluster did not keep up: {late}")
    return notes


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Ctrl-C once is noted here, so that no entry is left half done; twice raises."""
    stops: list[int] = []

    def note(number: int, _frame: object) -> None:
        if stops:
            raise KeyboardInterrupt
        stops.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stops
    finally:
        signal.signal(signal.SIGINT, before)


class _Listener:
    """Writes each event to standard output as well, until nobody reads it."""

    def __init__(self, session: Session) -> None:
        self._output = session.output
        self._encode = msgspec.json.Encoder().encode
        self._listening = True
        self._log: EventLogWriter | None = None

    def tee(self, log: EventLogWriter) -> Callable[[Envelope], None]:
        """What records to both."""
        self._log = log
        return self._record

    def _record(self, envelope: Envelope) -> None:
        assert self._log is not None
        self._log.write(envelope)
        if self._listening:
            try:
                self._output.text(self._encode(envelope).decode() + "\n")
            except OutputClosed:
                self._listening = False


class _ProgressBar:
    """A bar with the time that is left, on a terminal."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def show(self, progress: Progress) -> None:
        self._bar.update(
            self._task,
            completed=progress.settled,
            description=f"{progress.now_s:.0f} of {progress.planned_s:.0f} s",
        )


class ProgressLines:
    """A line now and then, where there is no terminal: a long run must not look dead."""

    def __init__(
        self,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        doing: str = "",
    ) -> None:
        self._say = say
        self._doing = doing
        self._clock = clock
        self._began_s = clock()
        self._next_s = self._began_s + LINES_S

    def begin(self) -> None:
        """Another simulation begins: what is left of it is reckoned from now on."""
        self._began_s = self._clock()

    def show(self, progress: Progress) -> None:
        """Say how far it is, where it is time."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + LINES_S
        done, planned = progress.settled, progress.planned
        text = f"{done:,} of {planned:,} requests"
        if done:
            left_s = (now_s - self._began_s) * (planned - done) / done
            text += f", about {left_s:.0f} s left"
        self._say(self._doing + text)


@contextmanager
def _progress(session: Session, prepared: PreparedSim) -> Iterator[_Show]:
    diagnostics = session.diagnostics
    if not prepared.options.says_progress:
        yield _show_nothing
        return
    if not diagnostics.terminal.lively(diagnostics.stream):
        yield ProgressLines(diagnostics.say).show
        return
    from rich.progress import (  # noqa: PLC0415 - only where it is drawn
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("requests, left"), TimeRemainingColumn(),
    )  # fmt: skip
    console = diagnostics.terminal.console(diagnostics.stream)
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(prepared.compiled.plan.requests))
        yield _ProgressBar(bar, task).show


def _show_nothing(_: Progress) -> None:
    return None
