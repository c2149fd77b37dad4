"""`anyserve runs`: list, show and delete what is recorded."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from anyserve.cli.figures import print_finished, summary_object
from anyserve.cli.finish import finish_run, read_resolved
from anyserve.cli.session import Session
from anyserve.errors import UsageError
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.telemetry.runs import (
    LATEST,
    RunBrief,
    RunDirectory,
    list_runs,
    open_run,
    point_latest,
    run_ids,
)

SCHEMA: Final = "anyserve.runs/1"


def list_all(session: Session, root: Path, *, as_json: bool) -> None:
    """A line about each run, newest last."""
    briefs = list_runs(root)
    if as_json:
        session.output.json({"schema": SCHEMA, "runs": msgspec.to_builtins(briefs)})
        return
    if not briefs:
        session.diagnostics.say(f"no runs in {root} yet")
        session.diagnostics.hint("make one with: anyserve up SCENARIO")
        return
    width = max(len(brief.id) for brief in briefs)
    for brief in briefs:
        session.output.line(_line(brief, width))


def _line(brief: RunBrief, width: int) -> str:
    if brief.offered is None:
        return f"{brief.id:<{width}}  no summary"
    length = "" if brief.duration_s is None else f"{brief.duration_s:.1f} s"
    whole = "" if brief.complete else "  incomplete"
    return (
        f"{brief.id:<{width}}  {brief.kind or '–':<5} {length:>8}  "  # noqa: RUF001 - unknown
        f"{brief.completed} of {brief.offered} completed{whole}"
    )


def show_one(session: Session, root: Path, name: str, *, as_json: bool) -> None:
    """The report of a run, made from its events again.

    Raises:
        UsageError: there is no such run, or it recorded nothing.
    """
    run = open_run(root, name)
    finished = finish_run(run, kind=read_resolved(run).kind)
    if as_json:
        session.output.json(summary_object(finished))
        return
    print_finished(session, finished)
    if finished.resolved.command:
        session.diagnostics.say()
        session.diagnostics.say(f"run      {finished.run.path}")
        if finished.run.report.exists():
            session.diagnostics.say(f"report   {finished.run.report}")
        session.diagnostics.say(f"again    {finished.resolved.command}")


def remove(session: Session, root: Path, names: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Delete runs.

    Raises:
        UsageError: there is no such run, it is being written, or nobody said yes.
    """
    runs = [open_run(root, name) for name in names]
    for run in runs:
        _refuse_live(session, run)
    if not yes:
        _ask(session, runs)
    for run in runs:
        shutil.rmtree(run.path)
    _mend_latest(root)
    if as_json:
        session.output.json({"schema": SCHEMA, "removed": [run.id for run in runs]})
    else:
        session.diagnostics.say(f"deleted {', '.join(run.id for run in runs)}")


def _refuse_live(session: Session, run: RunDirectory) -> None:
    for record in ClusterStore(state_dir(session.environ)).list():
        if Path(record.run_dir).resolve() == run.path.resolve():
            raise UsageError(
                f"the cluster {record.name} still writes to {run.id}",
                code="run_in_use",
                hint=f"anyserve down {record.name}",
            )


def _ask(session: Session, runs: Sequence[RunDirectory]) -> None:
    what = ", ".join(run.id for run in runs)
    if not sys.stdin.isatty():
        hint = "add --yes"
        raise UsageError(f"nobody is there to confirm: {what}", code="not_confirmed", hint=hint)
    session.diagnostics.say(f"delete {what}? [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise UsageError("nothing was deleted", code="not_confirmed")


def _mend_latest(root: Path) -> None:
    latest = root / LATEST
    if not latest.is_symlink() or latest.exists():
        return
    latest.unlink()
    left = run_ids(root)
    if left:
        point_latest(root, left[-1])
