"""`anyserve down`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from anyserve.cli.diagnostics import ExitCode
from anyserve.cli.session import Session
from anyserve.errors import AnyServeError, TimeLimitError
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.supervisor.control import Stop, request

SCHEMA: Final = "anyserve.down/1"
_POLL_S: Final = 0.05


def run_down(
    session: Session, name: str | None, *, kill: bool, timeout_s: float, as_json: bool
) -> int:
    """Stop a cluster and wait until it is gone.

    Raises:
        TimeLimitError: it still runs after `timeout_s`.
        AnyServeError: its supervisor refuses.
    """
    records = ClusterStore(state_dir(session.environ)).list()
    record = next((one for one in records if name in {None, one.name}), None)
    if record is not None:
        asyncio.run(_stop(record, kill=kill))
        _wait(record, timeout_s)
    if as_json:
        session.output.json({"schema": SCHEMA, "stopped": record.name if record else None})
    elif record is None:
        what = "no cluster runs here" if name is None else f"no cluster named {name} runs here"
        session.diagnostics.say(f"{what}; nothing to stop")
    else:
        session.diagnostics.say(f"{record.name} is stopped")
        session.diagnostics.say(f"run      {record.run_dir}")
    return ExitCode.OK


async def _stop(record: ClusterRecord, *, kill: bool) -> None:
    try:
        await request(Path(record.control), Stop(drain=not kill))
    except AnyServeError:
        if record.live:
            raise


def _wait(record: ClusterRecord, timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while record.live:
        if time.monotonic() > end_s:
            raise TimeLimitError(
                f"{record.name} still runs after {timeout_s:g} s",
                code="down_timeout",
                hint=f"anyserve down {record.name} --kill",
            )
        time.sleep(_POLL_S)
