"""`anyserve tui` on a running cluster: joins it, shows it, and never stops it."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

from anyserve.cli.sending import cluster_of
from anyserve.cli.session import Session
from anyserve.cli.tui_options import screen_options
from anyserve.errors import UsageError
from anyserve.runtime.clusters import ClusterRecord, ClusterStore, state_dir
from anyserve.runtime.lifeline import watch_lifeline
from anyserve.runtime.observer import ClusterControl, LiveSource
from anyserve.tui import TuiOptions, check_terminal, run_async


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachOptions:
    """`control`: what hurts may be done from the screen. `owned`: whoever started us stops the
    cluster when we leave, so leaving asks first."""

    cluster: str | None = None
    control: bool = False
    owned: bool = False
    theme: str = ""
    paint_hz: float = 4.0


def show_live(session: Session, options: AttachOptions) -> int:
    """Show a cluster until the person leaves; gives the exit code.

    Raises:
        UsageError: no such cluster runs, or there is no terminal.
        StartError: its broker does not answer.
    """
    # Without whoever started us nobody needs a screen, and nobody would restore the terminal.
    watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM))
    record = find_record(session, options.cluster)
    check_terminal(session.environ)
    screen = screen_options(session, theme=options.theme, paint_hz=options.paint_hz)
    return asyncio.run(_show(record, options, screen))


def find_record(session: Session, name: str | None) -> ClusterRecord:
    """The cluster that is meant.

    Raises:
        UsageError: none runs.
    """
    wanted = session.setting("cluster", name)
    store = ClusterStore(state_dir(session.environ))
    try:
        return store.find(None if wanted is None else str(wanted))
    except UsageError as error:
        hint = f"{error.hint}; a recorded run: anyserve tui --replay latest"
        raise UsageError(error.message, code=error.code, hint=hint) from None


async def _show(record: ClusterRecord, options: AttachOptions, screen: TuiOptions) -> int:
    control = ClusterControl(record, cluster_of(record)) if options.control else None
    source = LiveSource(record)
    await source.start()
    try:
        return await run_async(source, control, owns_cluster=options.owned, options=screen)
    finally:
        await source.close()
        if control is not None:
            await control.close()
