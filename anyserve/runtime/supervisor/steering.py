"""Carries out what arrives on the control socket."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from anyserve.core.events import FaultInjected
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.node_control import ConnectionFault
from anyserve.runtime.supervisor import control
from anyserve.runtime.supervisor.children import Child
from anyserve.runtime.supervisor.cluster import Cluster
from anyserve.runtime.supervisor.ending import Ending, Urgency
from anyserve.runtime.supervisor.faults import Target, TargetKind
from anyserve.runtime.supervisor.hands import BROKER

_LOG = logging.getLogger(__name__)
MOST_SLOW: Final = 1000.0
_OnProcess = control.Kill | control.Hang | control.Resume
_OnCluster = control.Slow | control.Drain | control.Disturb | control.Rate
_BY: Final = "by an operator"


class Operator:
    """Answers control requests about one cluster. `kept`: it outlives foreground and traffic.

    What it does to a running cluster it says as an event, as faults of the scenario are said.
    """

    def __init__(self, cluster: Cluster, ending: Ending, *, kept: bool) -> None:
        self.kept = kept
        self.state = "starting"
        self._cluster = cluster
        self._ending = ending
        self._later: set[asyncio.Task[None]] = set()

    async def handle(self, request: control.AnyRequest) -> Any:
        """Carry out one request; returns its result.

        Raises:
            AnyServeError: it cannot be done, and why.
        """
        match request:
            case control.Status():
                return self.status()
            case control.Stop(drain=drain):
                urgency = Urgency.DRAIN if drain else Urgency.NOW
                self._ending.request(urgency, "stopped by an operator")
            case control.Release():
                self.kept = True
            case control.Restart(name=name):
                await self._restart(name)
            case control.Crash(name=name, down_s=down_s):
                self._cluster.hands.crash(name, _time(down_s))
                self._say(f"restart-{name}", name)
            case control.Kill() | control.Hang() | control.Resume():
                self._act_on_process(request)
            case _:
                await self._act_on_cluster(request)
        return None

    def status(self) -> control.ClusterStatus:
        """What runs."""
        cluster = self._cluster
        return control.ClusterStatus(
            cluster=cluster.config.cluster.name,
            state="stopping" if self._ending.urgency else self.state,
            broker=cluster.broker.address.url,
            run_dir=cluster.config.run_dir,
            uptime_s=cluster.uptime_s,
            kept=self.kept,
            processes=[_process_status(child) for child in cluster.children.values()],
            replicas=[
                self._replica_status(replica.id) for replica in cluster.config.cluster.replicas
            ],
            doors=[
                control.DoorStatus(name=name, http=door.http, grpc=door.grpc, replica=door.replica)
                for name, door in sorted(cluster.view.doors.items())
            ],
        )

    async def close(self) -> None:
        """Forget hangs that are still to end; the processes end now anyway."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    def _act_on_process(self, request: _OnProcess) -> None:
        hands = self._cluster.hands
        target = Target(TargetKind(request.target), request.id)
        said = f"{request.target} {request.id}"
        match request:
            case control.Kill():
                hands.kill(target)
                self._say("kill", said)
            case control.Hang(duration_s=duration_s):
                lasts = _for(duration_s)
                hands.hang(target)
                self._say("hang", said, lasts)
                if duration_s is not None:
                    self._after(duration_s, lambda: self._resume(target, said))
            case control.Resume():
                hands.resume(target)
                if target.kind is TargetKind.REPLICA:
                    hands.drain(target.id, on=False)
                self._say("resume", said)

    async def _resume(self, target: Target, said: str) -> None:
        self._cluster.hands.resume(target)
        self._say("resume", said)

    async def _act_on_cluster(self, request: _OnCluster) -> None:
        hands = self._cluster.hands
        match request:
            case control.Slow(id=replica, factor=factor):
                hands.slow(replica, _slowness(factor))
                ends = factor == 1
                said = "" if ends else f"x {factor:g}"
                self._say("slow ends" if ends else "slow", f"replica {replica}", said)
            case control.Drain(id=replica):
                hands.drain(replica, on=True)
                self._say("drain", f"replica {replica}")
            case control.Disturb(id=replica, how=how, duration_s=duration_s):
                await self._disturb(replica, how, _for(duration_s))
                if duration_s is not None:
                    over = ConnectionFault(kind=how.kind, on=False)
                    self._after(duration_s, lambda: self._disturb(replica, over))
            case control.Rate(factor=factor):
                await hands.rate(factor)  # the player says it itself

    async def _disturb(self, replica: str, how: ConnectionFault, lasts: str = "") -> None:
        await self._cluster.hands.disturb(replica, how)
        self._say(how.kind if how.on else f"{how.kind} ends", f"replica {replica}", lasts)

    async def _restart(self, name: str) -> None:
        hands = self._cluster.hands
        if name == BROKER:
            hands.crash(name, 0.0)
        else:
            await hands.process(name).restart()
        self._say(f"restart-{name}", name)

    def _say(self, action: str, target: str, *details: str) -> None:
        detail = ", ".join(one for one in (*details, _BY) if one)
        self._cluster.emit(FaultInjected(action=action, target=target, detail=detail))

    def _after(self, duration_s: float, then: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(duration_s)
            try:
                await then()
            except AnyServeError as error:
                # It has ended meanwhile, and what was done to it with it.
                _LOG.info("nothing to end any more: %s", error.message)

        task = asyncio.create_task(wait(), name="end what an operator began")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _replica_status(self, replica: str) -> control.ReplicaStatus:
        view = self._cluster.view.of(replica)
        state = view.registration.state.value if view.registration is not None else "unknown"
        pid = view.worker.pid if view.worker is not None else None
        return control.ReplicaStatus(id=replica, state=state, worker_pid=pid)


def _for(duration_s: float | None) -> str:
    return "" if duration_s is None else f"for {_time(duration_s):g} s"


def _time(seconds: float) -> float:
    if not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"{seconds:g} s is no length of time", code="bad_time")
    return seconds


def _slowness(factor: float) -> float:
    if not 1 <= factor <= MOST_SLOW:
        hint = f"1 is normal, {MOST_SLOW:g} is the most"
        raise UsageError(f"{factor:g} is no slowness", code="bad_factor", hint=hint)
    return factor


def _process_status(child: Child) -> control.ProcessStatus:
    last = child.last_exit
    return control.ProcessStatus(
        name=child.name,
        state=child.state.value,
        pid=child.pid,
        started_s=child.created_s,
        restarts=child.restarts,
        last_exit="" if last is None else last.cause,
    )
