"""The supervisor's life: start the cluster, wait for its end, leave nothing, say how it was."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from anyserve.runtime.clusters import ClusterStore
from anyserve.runtime.logs import ErrorReport, Redactor
from anyserve.runtime.process import find_foreseen
from anyserve.runtime.supervisor.cluster import Cluster
from anyserve.runtime.supervisor.config import SupervisorConfig
from anyserve.runtime.supervisor.control import ControlServer
from anyserve.runtime.supervisor.deaths import Over
from anyserve.runtime.supervisor.ending import Ending, Urgency
from anyserve.runtime.supervisor.memory import available_gib, check_memory, counts_memory
from anyserve.runtime.supervisor.nodes import Command, node_command
from anyserve.runtime.supervisor.progress import AnyProgress, Exit, Ready, TrafficEnded
from anyserve.runtime.supervisor.steering import Operator

_LOG = logging.getLogger(__name__)
_INTERNAL = 70


class Supervision:
    """One run of the supervisor. `foreground_gone` may be called at any time."""

    def __init__(
        self,
        config: SupervisorConfig,
        say: Callable[[AnyProgress], None],
        ending: Ending,
        *,
        store: ClusterStore,
        environ: Mapping[str, str] = os.environ,
        command: Command = node_command,
    ) -> None:
        self._config = config
        self._say = say
        self._ending = ending
        self._environ = environ
        self._cluster = Cluster(config, say, store=store, environ=environ, command=command)
        self._operator = Operator(self._cluster, ending, kept=config.keep)
        self._control: ControlServer | None = None

    async def run(self) -> int:
        """Everything, from the first step to the `Exit` line; returns the exit code."""
        hurry = asyncio.create_task(self._cluster.hurry(self._ending), name="hurry")
        try:
            over = await self._live()
        except Exception as error:  # noqa: BLE001 - whatever it is, the cluster is torn down
            over = _failure(error)
        try:
            await self._tear_down()
        except Exception as error:  # noqa: BLE001 - the last word must be said in any case
            over = _failure(error) if over.error is None else over
        hurry.cancel()
        self._say_exit(over)
        return over.exit_code

    def foreground_gone(self) -> None:
        """The foreground's lifeline ended: a cluster that is not kept ends within seconds."""
        if self._operator.kept:
            _LOG.info("the foreground left; the cluster is kept")
        else:
            self._ending.request(Urgency.FAST, "the foreground process is gone", exit_code=3)

    async def _live(self) -> Over:
        if counts_memory(self._config, self._environ):
            check_memory(self._config.cluster, available_gib())
        await self._do(self._start())
        over = await self._until_over()
        if over is None or over.exit_code != 0:
            return over or self._ended()
        await self._cluster.end_run()
        self._say(TrafficEnded(kept=self._operator.kept, t=self._cluster.uptime_s))
        if not self._operator.kept:
            return over
        self._operator.state = "idle"
        self._cluster.deaths.reopen()
        return await self._until_over() or self._ended()

    def _ended(self) -> Over:
        return Over(self._ending.exit_code, self._ending.reason)

    async def _until_over(self) -> Over | None:
        """Why it is over by itself; None where somebody wished for the end."""
        over = self._cluster.deaths.over
        await self._do(asyncio.shield(over))
        return over.result() if over.done() else None

    async def _start(self) -> None:
        cluster = self._cluster
        await cluster.start_broker()
        self._control = ControlServer(cluster.home.control_socket, self._operator.handle)
        await self._control.start()
        await cluster.start_nodes()
        self._say(
            Ready(
                cluster=self._config.cluster.name,
                broker=cluster.broker.address.url,
                control=str(cluster.home.control_socket),
                t=cluster.uptime_s,
            )
        )
        await cluster.play()
        self._operator.state = "running"

    async def _do(self, work: Awaitable[object]) -> None:
        """Do the work; cancel it when the cluster is over, or its end wished."""
        working = asyncio.ensure_future(work)
        wished = asyncio.ensure_future(self._ending.reached(Urgency.DRAIN))
        waiting: set[asyncio.Future[Any]] = {working, wished, self._cluster.deaths.over}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            wished.cancel()
            working.cancel()
            await asyncio.gather(working, wished, return_exceptions=True)

    async def _tear_down(self) -> None:
        await self._operator.close()
        try:
            await self._cluster.tear_down()
        finally:
            if self._control is not None:
                await self._control.close()

    def _say_exit(self, over: Over) -> None:
        credentials = self._cluster.broker.credentials.by_role.values()
        redact = Redactor(login.password for login in credentials)
        error = None if over.error is None else redact.report(over.error)
        self._say(
            Exit(
                code=over.exit_code,
                reason=redact(over.reason),
                error=error,
                t=self._cluster.uptime_s,
            )
        )


def _failure(error: Exception) -> Over:
    foreseen = find_foreseen(error)
    if foreseen is not None:
        _LOG.error("%s (%s)", foreseen.message, foreseen.code)
        return Over(foreseen.exit_code, "the cluster could not start", ErrorReport.of(foreseen))
    _LOG.error("a bug of ours, or of something we use", exc_info=error)
    report = ErrorReport(code="internal", message=f"{type(error).__name__}: {error}")
    return Over(_INTERNAL, "a bug of ours", report)
