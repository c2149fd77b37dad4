"""Gathers the facts, runs the checks, prints the findings."""

from __future__ import annotations

import platform
import resource
import shutil
import sys
from pathlib import Path
from typing import Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.doctor.checks import Finding, Grade, Machine, check_all
from anyserve.cli.session import Session
from anyserve.compiled.use import look as look_compiled
from anyserve.errors import AnyServeError
from anyserve.runtime.broker.config import find_broker
from anyserve.runtime.clusters import ClusterStore, state_dir
from anyserve.runtime.engines.detect import detect
from anyserve.runtime.gpus import Gpu, find_gpus
from anyserve.runtime.models import BUILTIN_MODELS
from anyserve.runtime.models.packages import is_installed
from anyserve.runtime.supervisor.memory import available_gib

SCHEMA: Final = "anyserve.doctor/1"
_COLORS: Final = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}
_GIB: Final = 2**30


def run_doctor(session: Session, *, as_json: bool) -> int:
    """Check this machine; 1 where no cluster can run here."""
    findings = check_all(look(session))
    failed = any(finding.grade is Grade.FAIL for finding in findings)
    if as_json:
        session.output.json(
            {
                "schema": SCHEMA,
                "ok": not failed,
                "checks": [
                    {"name": f.name, "grade": f.grade.value, "text": f.text, "fix": f.fix or None}
                    for f in findings
                ],
            }
        )
    else:
        for finding in findings:
            _print(session, finding)
    return ExitCode.EXPECTATIONS_FAILED if failed else ExitCode.OK


def _print(session: Session, finding: Finding) -> None:
    grade = session.terminal.paint(f"{finding.grade.value:<4}", _COLORS[finding.grade], sys.stdout)
    session.output.line(f"{grade}  {finding.name:<18} {finding.text}")
    if finding.fix:
        session.output.line(f"{'':<25}fix: {finding.fix}")


def look(session: Session) -> Machine:
    """The facts about this machine."""
    broker, broker_fix = _broker()
    gpus, gpu_trouble = _gpus(session)
    store = ClusterStore(state_dir(session.environ))
    files = len(list(store.root.glob("*.json"))) if store.root.is_dir() else 0
    live = [record.name for record in store.list()]
    disk_path = _existing(session.runs_dir)
    return Machine(
        python=sys.version_info[:3],
        platform=platform.platform(),
        detection=detect(),
        gpus=gpus,
        gpu_trouble=gpu_trouble,
        broker=broker,
        broker_fix=broker_fix,
        models={
            name: "" if is_installed(model) else model.install_line
            for name, model in BUILTIN_MODELS.items()
        },
        memory_gib=available_gib(),
        fd_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        disk_gib=shutil.disk_usage(disk_path).free / _GIB,
        disk_path=str(disk_path),
        encoding=sys.stdout.encoding or "ascii",
        is_terminal=session.output.is_terminal,
        clusters=live,
        stale_clusters=max(0, files - len(live)),
        compiled=look_compiled(session.environ)[0],
    )


def _broker() -> tuple[str | None, str]:
    try:
        binary = find_broker()
    except AnyServeError as error:
        return None, error.hint or error.message
    return f"{binary.kind.value}: {binary.path}", ""


def _gpus(session: Session) -> tuple[list[Gpu], str]:
    try:
        return find_gpus(session.environ), ""
    except AnyServeError as error:
        return [], error.message


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
