"""`anyserve tui --replay`: a recorded run on the screens of a live one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyserve.cli.run_events import load_events
from anyserve.cli.session import Session
from anyserve.cli.tui_options import screen_options
from anyserve.errors import UsageError
from anyserve.telemetry.recording import record
from anyserve.telemetry.run_times import parse_time
from anyserve.telemetry.runs import open_run
from anyserve.tui import check_terminal, run_replay

SLOWEST: Final = 0.25
FASTEST: Final = 8.0


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """`run`: what `open_run` understands. `at`: what `parse_time` understands."""

    run: str
    at: str = "0"
    speed: float = 1.0
    paused: bool = False
    theme: str = ""
    paint_hz: float = 4.0


def show_replay(session: Session, runs: Path, options: ReplayOptions) -> int:
    """Show a recorded run until the person leaves; gives the exit code.

    Raises:
        UsageError: there is no such run, time, speed or theme, or no terminal.
    """
    check_terminal(session.environ)
    if not SLOWEST <= options.speed <= FASTEST:
        raise UsageError(
            f"cannot replay at speed {options.speed:g}",
            code="bad_speed",
            hint=f"from {SLOWEST:g} to {FASTEST:g}; 1 is the pace of the run",
        )
    screen = screen_options(session, theme=options.theme, paint_hz=options.paint_hz)
    run = open_run(runs, options.run)
    envelopes, problems = load_events(run)
    for problem in problems:
        session.diagnostics.warn(f"the log is not whole: {problem}")
    recording = record(envelopes)
    return run_replay(
        recording,
        {"run_dir": str(run.path), "log": str(run.events)},
        at_s=parse_time(options.at, recording.end_s),
        speed=options.speed,
        playing=not options.paused,
        options=screen,
    )
