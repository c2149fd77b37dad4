"""Carries out what arrives on the control socket."""

from __future__ import annotations

import asyncio
from typing import Any

from anyserve.errors import UsageError
from anyserve.runtime.supervisor import control
from anyserve.runtime.supervisor.children import Child
from anyserve.runtime.supervisor.cluster import Cluster
from anyserve.runtime.supervisor.ending import Ending, Urgency
from anyserve.runtime.supervisor.faults import Target, TargetKind

_Process = control.Kill | control.Hang | control.Resume


class Operator:
    """Answers control requests about one cluster. `kept`: it outlives foreground and traffic."""

    def __init__(self, cluster: Cluster, ending: Ending, *, kept: bool) -> None:
        self.kept = kept
        self.state = "starting"
        self._cluster = cluster
        self._ending = ending
        self._hangs: set[asyncio.Task[None]] = set()

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
                await self._child(name).restart()
            case control.Slow(id=replica, factor=factor):
                self._cluster.hands.slow(replica, factor)
            case control.Drain(id=replica):
                self._cluster.hands.drain(replica, on=True)
            case _:
                self._act(request)
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
        for task in self._hangs:
            task.cancel()
        await asyncio.gather(*self._hangs, return_exceptions=True)

    def _act(self, request: _Process) -> None:
        hands = self._cluster.hands
        target = Target(TargetKind(request.target), request.id)
        match request:
            case control.Kill():
                hands.kill(target)
            case control.Hang(duration_s=duration_s):
                hands.hang(target)
                if duration_s is not None:
                    self._resume_later(target, duration_s)
            case control.Resume():
                hands.resume(target)
                if target.kind is TargetKind.REPLICA:
                    hands.drain(target.id, on=False)

    def _resume_later(self, target: Target, duration_s: float) -> None:
        async def resume() -> None:
            await asyncio.sleep(duration_s)
            self._cluster.hands.resume(target)

        task = asyncio.create_task(resume(), name=f"resume {target.id}")
        self._hangs.add(task)
        task.add_done_callback(self._hangs.discard)

    def _child(self, name: str) -> Child:
        child = self._cluster.children.get(name)
        if child is None:
            hint = f"processes of this cluster: {', '.join(self._cluster.children)}"
            raise UsageError(f"there is no process {name!r}", code="no_such_process", hint=hint)
        return child

    def _replica_status(self, replica: str) -> control.ReplicaStatus:
        view = self._cluster.view.of(replica)
        state = view.registration.state.value if view.registration is not None else "unknown"
        pid = view.worker.pid if view.worker is not None else None
        return control.ReplicaStatus(id=replica, state=state, worker_pid=pid)


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
