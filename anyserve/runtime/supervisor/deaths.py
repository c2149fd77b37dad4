"""What the end of each process means for the cluster: a notice, an event, or the end of it all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyserve.core.events import AnyEvent, ProcessExited
from anyserve.runtime.logs import ErrorReport
from anyserve.runtime.supervisor.children import ExitReport

_LOG = logging.getLogger(__name__)
_FAILED: Final = 3
PLAYER: Final = "player"
RECORDER: Final = "recorder"
SCHEDULER: Final = "scheduler"


@dataclass(frozen=True, slots=True)
class Over:
    """Why there is nothing left to do: the traffic was played, or something failed for good."""

    exit_code: int
    reason: str
    error: ErrorReport | None = None


class Deaths:
    """Takes every exit. `emit` says an event, `notice` tells the reader, `over` ends the cluster.

    Names in `expected` end because somebody waits for it: they are not reported here.
    """

    def __init__(self, emit: Callable[[AnyEvent], None], notice: Callable[[str], None]) -> None:
        self.expected: set[str] = set()
        self.ending = False
        self.over: asyncio.Future[Over] = asyncio.get_running_loop().create_future()
        self._emit = emit
        self._notice = notice

    def on_exit(self, report: ExitReport) -> None:
        """A child ended."""
        _LOG.info("%s ended (%s) after %.1f s", report.name, report.cause, report.lived_s)
        if self.ending or report.name in self.expected:
            return
        if report.name == PLAYER and report.exit_code == 0:
            self.finish(Over(0, "the traffic was played"))
            return
        self._emit(
            ProcessExited(
                name=report.name, exit_code=report.exit_code, restart_in_s=report.restart_in_s
            )
        )
        if report.restart_in_s is not None:
            wait = f"starts again in {report.restart_in_s:g} s"
            self._notice(f"{report.name} ended ({report.cause}), {wait}")
        elif report.name in {PLAYER, SCHEDULER}:
            self.finish(_fatal(report))
        else:
            # A replica's end is the run's to judge; a recorder's shows as an incomplete log.
            self._notice(f"{report.name} ended too often ({report.cause}) and stays down")

    def finish(self, over: Over) -> None:
        """The first reason stays."""
        if not self.over.done():
            self.over.set_result(over)

    def reopen(self) -> None:
        """The traffic is over, the cluster lives on: from now on only failures end it."""
        self.over = asyncio.get_running_loop().create_future()

    def broker_gone(self, why: str) -> None:
        """Without a broker nothing works."""
        report = ErrorReport(code="broker_gone", message=why, exit_code=_FAILED)
        self.finish(Over(_FAILED, "the broker is gone", report))


def _fatal(report: ExitReport) -> Over:
    if report.error is not None:
        return Over(report.error.exit_code, f"{report.name} failed", report.error)
    text = "\n  ".join((f"{report.name} ended ({report.cause})", *report.tail))
    error = ErrorReport(code="process_ended", message=text, exit_code=_FAILED)
    return Over(_FAILED, f"{report.name} ended", error)
