"""From a source to a running application, and back to an exit code."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from anyserve.errors import UsageError
from anyserve.telemetry.control import Control
from anyserve.telemetry.run_plan import RunPlan, read_run_plan
from anyserve.telemetry.source import EventSource
from anyserve.tui.options import TuiOptions

if TYPE_CHECKING:
    from anyserve.telemetry.recording import Recording
    from anyserve.tui.app import AnyServeApp

_LOADED_S = 1.0
"""By then there is a first picture, and whoever started us may have kept `gc` away until then."""


def check_terminal(
    environ: Mapping[str, str], stdin: TextIO | None = None, stderr: TextIO | None = None
) -> None:
    """Whether screens can be shown here: Textual reads stdin and paints on stderr.

    Raises:
        UsageError: one of them is no terminal, or the terminal cannot move its cursor.
    """
    if "TEXTUAL_DRIVER" in environ:
        return  # a browser is the terminal: `anyserve tui --web`
    stdin = sys.stdin if stdin is None else stdin
    stderr = sys.stderr if stderr is None else stderr
    missing = [
        name for name, stream in (("stdin", stdin), ("stderr", stderr)) if not stream.isatty()
    ]
    if missing:
        raise UsageError(
            f"the screens need a terminal, and {' and '.join(missing)} is none",
            code="no_terminal",
            hint="without one: anyserve status, or anyserve up --ui plain",
        )
    if environ.get("TERM", "dumb") in {"dumb", ""}:
        raise UsageError(
            "the screens need a terminal that can move its cursor, and TERM says 'dumb'",
            code="no_terminal",
            hint="set TERM to what it is, or use: anyserve status, anyserve up --ui plain",
        )


def run(
    source: EventSource,
    control: Control | None = None,
    *,
    owns_cluster: bool = False,
    options: TuiOptions | None = None,
) -> int:
    """Show a source until the person leaves; blocks, and gives the exit code.

    `control` None: read-only. `owns_cluster`: leaving stops the cluster, so `q` asks first while
    it runs; the stopping is the caller's. Gives 0 where the person left, 130 after Ctrl-C, 143
    after SIGTERM. The source is closed at the end.

    Raises:
        UsageError: there is no terminal to show it on.
        Exception: a bug, after the terminal was restored.
    """
    return asyncio.run(run_async(source, control, owns_cluster=owns_cluster, options=options))


async def run_async(
    source: EventSource,
    control: Control | None = None,
    *,
    owns_cluster: bool = False,
    options: TuiOptions | None = None,
) -> int:
    """`run`, in an event loop that runs already."""
    from anyserve.tui.app import AnyServeApp  # noqa: PLC0415 - loads Textual
    from anyserve.tui.feed import LiveFeed  # noqa: PLC0415

    options = TuiOptions() if options is None else options
    feed = LiveFeed(source, _plan(options, source.facts), time.monotonic)
    app = AnyServeApp(feed, control, time.monotonic, owns_cluster=owns_cluster, options=options)
    return await _show(app)


def run_replay(
    recording: Recording,
    facts: Mapping[str, str],
    *,
    at_s: float = 0.0,
    speed: float = 1.0,
    playing: bool = True,
    options: TuiOptions | None = None,
) -> int:
    """Show a recorded run, from `at_s` seconds after the start of its traffic; see `run`."""
    from anyserve.tui.app import AnyServeApp  # noqa: PLC0415 - loads Textual
    from anyserve.tui.replay import ReplayFeed  # noqa: PLC0415

    options = TuiOptions() if options is None else options
    feed = ReplayFeed(
        recording,
        _plan(options, facts),
        facts,
        time.monotonic,
        speed=speed,
        at_s=at_s,
        playing=playing,
    )
    return asyncio.run(_show(AnyServeApp(feed, None, time.monotonic, options=options)))


def _plan(options: TuiOptions, facts: Mapping[str, str]) -> RunPlan:
    if options.plan is not None:
        return options.plan
    run_dir = facts.get("run_dir", "")
    return read_run_plan(Path(run_dir)) if run_dir else RunPlan()


def _collect_again() -> None:
    """Look for garbage from now on, but not among what was loaded: that stays."""
    gc.freeze()
    gc.enable()


async def _show(app: AnyServeApp) -> int:
    import os  # noqa: PLC0415 - only here

    check_terminal(os.environ)
    asyncio.get_running_loop().call_later(_LOADED_S, _collect_again)
    code = await app.run_async()
    if app.crash is not None:
        raise app.crash
    return 0 if code is None else code
