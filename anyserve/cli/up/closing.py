"""After the cluster: what the run came to, how to go on, and the exit code."""

from __future__ import annotations

import msgspec

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.figures import print_finished, summary_object
from anyserve.cli.finish import Finished, finish_run
from anyserve.cli.session import Session
from anyserve.cli.up.foreground import Ended
from anyserve.cli.up.prepare import Prepared
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.logs import ErrorReport
from anyserve.telemetry.runs import RunDirectory


class RunFailedError(AnyServeError):
    """What the supervisor reported, with its own exit code."""

    def __init__(self, report: ErrorReport, code: int) -> None:
        super().__init__(report.message, code=report.code, hint=report.hint)
        self.exit_code = code  # type: ignore[misc]  # differs from one report to the next


def close_run(session: Session, prepared: Prepared, run: RunDirectory, ended: Ended) -> int:
    """Write the summary, print the report, say how to go on; returns the exit code.

    Raises:
        AnyServeError: the cluster failed before or while the traffic ran.
    """
    if ended.kept and not ended.played:
        _say_kept(session, prepared)
        return ExitCode.OK
    finished = _finish(session, run, ended)
    if finished is not None:
        _report(session, prepared, finished, ended)
    if ended.error is not None:
        raise RunFailedError(ended.error, ended.code)
    if ended.code != ExitCode.OK:
        return ended.code
    if finished is None or not finished.as_expected:
        return ExitCode.EXPECTATIONS_FAILED
    return ExitCode.OK


def _finish(session: Session, run: RunDirectory, ended: Ended) -> Finished | None:
    if not ended.played:
        session.diagnostics.say(f"logs: {run.logs}")
        return None
    try:
        return finish_run(run, kind="live")
    except UsageError as error:  # nothing was recorded: the exit code says the run is no good
        session.diagnostics.error(error.code, error.message, error.hint)
        return None


def _report(session: Session, prepared: Prepared, finished: Finished, ended: Ended) -> None:
    options = prepared.options
    if options.ui == "json":
        session.output.text(msgspec.json.encode(summary_object(finished)).decode() + "\n")
    elif options.as_json:
        session.output.json(summary_object(finished))
    elif options.ui != "none":
        print_finished(session, finished)
    if options.ui == "none":
        return
    say = session.diagnostics.say
    say()
    say(f"run      {finished.run.path}")
    if finished.run.report.exists():
        say(f"report   {finished.run.report}")
    if finished.notable:
        say(f"go on    anyserve trace {finished.notable[0].id.rpartition('/')[2]}")
    say(f"again    {options.command_line()}")
    if ended.kept:
        _say_kept(session, prepared)


def _say_kept(session: Session, prepared: Prepared) -> None:
    name = prepared.compiled.cluster.name
    text = f"{name} stays up: anyserve send, anyserve status, anyserve down {name}"
    session.diagnostics.say(text)
