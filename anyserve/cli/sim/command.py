"""The steps of `anyserve sim`, one after the other."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

import msgspec

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.figures import print_finished, summary_object
from anyserve.cli.finish import Finished, finish_counted, finish_run
from anyserve.cli.session import Session
from anyserve.cli.sim.checking import check_run
from anyserve.cli.sim.options import SimOptions
from anyserve.cli.sim.playing import Played, play
from anyserve.cli.sim.prepare import PreparedSim, prepare_sim
from anyserve.collecting import no_collecting
from anyserve.compiled.use import Standing, in_use, look
from anyserve.errors import UsageError
from anyserve.sim.watch import Watch
from anyserve.telemetry.invariants import Violation
from anyserve.telemetry.runs import RunDirectory, create_run
from anyserve.workload.profiles import told_of

UI_CHOICES: Final = ("plain", "tui", "json", "none")
_SHOWN_VIOLATIONS: Final = 20
_LONG_S: Final = 10.0
"""Simulations that take longer are worth a hint."""


def run_sim(session: Session, options: SimOptions) -> int:
    """Everything that `anyserve sim` does; returns its exit code.

    Raises:
        AnyServeError: the simulation could not start, or could not end.
    """
    if options.check and options.sample < 1.0:
        hint = "leave --sample out"
        raise UsageError("a sampled log proves nothing", code="usage", hint=hint)
    if options.ui not in UI_CHOICES:
        hint = f"one of: {', '.join(UI_CHOICES)}"
        raise UsageError(f"there is no ui '{options.ui}'", code="usage", hint=hint)
    began_s = time.perf_counter()
    with no_collecting():
        prepared = _prepare(session, options)
        _announce(session, prepared)
        run = make_run(prepared)
        watch = Watch() if options.check else None
        played = play(session, prepared, run, watch)
        if played.tally is None:
            finished = finish_run(run, kind="sim")
        else:
            finished = finish_counted(run, played.tally, kind="sim")
        violations = [] if watch is None else check_run(run, prepared, watch)
    _report(session, prepared, finished, violations)
    if options.ui != "none":
        wall_s = time.perf_counter() - began_s
        _say_how_fast(session, finished, played, wall_s, prepared.options.from_run)
    if options.ui == "tui" and not played.interrupted:
        _show_screens(session, finished)
    if played.interrupted:
        return ExitCode.INTERRUPTED
    if violations or not finished.as_expected:
        return ExitCode.EXPECTATIONS_FAILED
    return ExitCode.OK


def _show_screens(session: Session, finished: Finished) -> None:
    """The run on the screens of `anyserve tui`, to go through at any speed."""
    from anyserve.cli.tui_replay import ReplayOptions, show_replay  # noqa: PLC0415 - loads textual

    show_replay(session, finished.run.path.parent, ReplayOptions(finished.run.id))


def _prepare(session: Session, options: SimOptions) -> PreparedSim:
    if options.from_run is None:
        return prepare_sim(options)
    from anyserve.cli.sim.from_run import prepare_from_run  # noqa: PLC0415 - only where asked for

    return prepare_from_run(session, options, options.from_run)


def make_run(prepared: PreparedSim) -> RunDirectory:
    """The run's directory, with what is run in it."""
    compiled = prepared.compiled
    root = prepared.options.runs.absolute()
    run = create_run(root, compiled.cluster.name, compiled.seed, datetime.now(UTC))
    resolved = msgspec.json.format(msgspec.json.encode(prepared.resolved()), indent=2)
    run.scenario.write_bytes(resolved + b"\n")
    return run


def _announce(session: Session, prepared: PreparedSim) -> None:
    if prepared.options.ui == "none":
        return
    compiled = prepared.compiled
    plan = compiled.plan
    session.diagnostics.say(
        f"{compiled.cluster.name}, simulated: {len(compiled.cluster.replicas)} replicas, "
        f"{len(plan.requests)} requests in {plan.duration_ns / 1e9:g} s, seed {compiled.seed}"
    )
    if told := told_of(compiled.cluster):
        session.diagnostics.say(f"engines take the times of {', '.join(told)}")
    if prepared.policy:
        session.diagnostics.say(f"policy {prepared.policy}")
    if prepared.speed:
        session.diagnostics.say(f"as fast as {prepared.options.from_run} was: {prepared.speed}")


def _report(
    session: Session, prepared: PreparedSim, finished: Finished, violations: list[Violation]
) -> None:
    options = prepared.options
    if options.ui == "json" or options.as_json:
        found = summary_object(finished)
        if options.check:
            found["violations"] = [str(violation) for violation in violations]
        if options.ui == "json":
            session.output.text(msgspec.json.encode(found).decode() + "\n")
        else:
            session.output.json(found)
    elif options.ui != "none":
        print_finished(session, finished)
    if options.check:
        _report_check(session, violations, quiet=options.ui == "none")


def _report_check(session: Session, violations: list[Violation], *, quiet: bool) -> None:
    for violation in violations[:_SHOWN_VIOLATIONS]:
        session.diagnostics.error("invariant", str(violation))
    more = len(violations) - _SHOWN_VIOLATIONS
    if more > 0:
        session.diagnostics.say(f"… and {more} more")
    if not violations and not quiet:
        mark = session.terminal.mark(ok=True)
        session.diagnostics.say(f"{mark} all invariants hold over the log")


def _say_how_fast(
    session: Session, finished: Finished, played: Played, wall_s: float, from_run: str | None
) -> None:
    say = session.diagnostics.say
    offered = finished.summary.requests.offered
    virtual_s = finished.summary.duration_s or 0.0
    rate = f"{offered / max(played.wall_s, 1e-9):,.0f} requests/s"
    how = f"{rate}, compiled" if in_use() else rate
    say()
    say(f"{virtual_s:.1f} s of serving in {played.wall_s:.2f} s ({how}), {wall_s:.2f} s in all")
    if wall_s > _LONG_S and look(session.environ)[0] in {Standing.NEVER_BUILT, Standing.STALE}:
        session.diagnostics.hint("anyserve compile makes simulations about four times as fast")
    for text in played.notes:
        say(text)
    say(f"run      {finished.run.path}")
    if finished.run.report.exists():
        say(f"report   {finished.run.report}")
    if finished.notable:
        say(f"go on    anyserve trace {finished.notable[0].id.rpartition('/')[2]}")
    if finished.resolved.command:
        say(f"again    {finished.resolved.command}")
    if from_run is not None:
        say(f"compare  anyserve compare {from_run} {finished.run.id}")
