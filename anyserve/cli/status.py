"""`anyserve status`: what runs on this machine."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.errors import AnyServeError
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.supervisor.control import ClusterStatus, ControlClient

SCHEMA: Final = "anyserve.status/1"
_EVERY_S: Final = 2.0


def show_status(session: Session, name: str | None, *, watch: bool, as_json: bool) -> int:
    """Print the clusters that run; with a name, that one only.

    Raises:
        UsageError: there is no cluster of that name.
    """
    while True:
        found = asyncio.run(_ask_all(_records(session, name)))
        if as_json:
            _print_json(session, found, lines=watch)
        else:
            _print_text(session, found)
        if not watch:
            return ExitCode.OK
        time.sleep(_EVERY_S)


def _records(session: Session, name: str | None) -> list[ClusterRecord]:
    store = ClusterStore(state_dir(session.environ))
    return store.list() if name is None else [store.find(name)]


async def _ask_all(
    records: list[ClusterRecord],
) -> list[tuple[ClusterRecord, ClusterStatus | None]]:
    return [(record, await _ask(record)) for record in records]


async def _ask(record: ClusterRecord) -> ClusterStatus | None:
    """What its supervisor says; None where it does not answer (it is starting, or ends)."""
    try:
        async with ControlClient(Path(record.control), timeout_s=3.0) as client:
            return await client.status()
    except AnyServeError:
        return None


def _print_json(
    session: Session, found: list[tuple[ClusterRecord, ClusterStatus | None]], *, lines: bool
) -> None:
    clusters = [_entry(record, status) for record, status in found]
    answer = {"schema": SCHEMA, "clusters": clusters}
    if lines:
        session.output.record(answer)
    else:
        session.output.json(answer)


def _entry(record: ClusterRecord, status: ClusterStatus | None) -> dict[str, Any]:
    facts = {"cluster": record.name, "scenario": record.scenario, "pid": record.supervisor.pid}
    if status is None:
        return facts | {"state": "not answering", "broker": record.broker.url}
    # Defaults count here: a reader wants `restarts: 0`, not a hole.
    plain = {name: getattr(status, name) for name in status.__struct_fields__}
    plain["processes"] = [_all_fields(process) for process in status.processes]
    plain["doors"] = [_all_fields(door) for door in status.doors]
    plain["replicas"] = [_all_fields(replica) for replica in status.replicas]
    return facts | plain


def _all_fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _print_text(session: Session, found: list[tuple[ClusterRecord, ClusterStatus | None]]) -> None:
    if not found:
        session.diagnostics.say("no cluster runs here")
        session.diagnostics.hint("start one with: anyserve up SCENARIO --keep")
        return
    for record, status in found:
        for line in _lines(record, status):
            session.output.line(line)


def _lines(record: ClusterRecord, status: ClusterStatus | None) -> list[str]:
    if status is None:
        return [f"{record.name}  does not answer (pid {record.supervisor.pid})"]
    kept = ", kept" if status.kept else ""
    lines = [
        f"{record.name}  {status.state}{kept}  {status.uptime_s:.0f} s  {status.broker}",
        f"  scenario {record.scenario}",
        f"  run      {status.run_dir}",
    ]
    for door in status.doors:
        addresses = "  ".join(filter(None, (door.http, door.grpc)))
        lines.append(f"  door     {door.name:<12} {addresses}")
    for replica in status.replicas:
        worker = f"worker {replica.worker_pid}" if replica.worker_pid else "no worker"
        lines.append(f"  replica  {replica.id:<12} {replica.state:<10} {worker}")
    for process in status.processes:
        restarts = f"  {process.restarts} restarts" if process.restarts else ""
        last = f"  last exit: {process.last_exit}" if process.last_exit else ""
        pid = "" if process.pid is None else f"pid {process.pid}"
        lines.append(f"  process  {process.name:<12} {process.state:<10} {pid}{restarts}{last}")
    return lines
