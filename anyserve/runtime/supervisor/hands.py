"""What a fault or an operator does to the processes of a cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from anyserve.core.messages import Operate
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.clusters import ProcessRecord
from anyserve.runtime.supervisor.children import Child
from anyserve.runtime.supervisor.faults import Target, TargetKind
from anyserve.runtime.supervisor.link import Speaker
from anyserve.runtime.supervisor.nodes import replica_name
from anyserve.runtime.supervisor.view import ClusterView


class ClusterHands:
    """`FaultHands` on real processes."""

    def __init__(self, children: Mapping[str, Child], view: ClusterView, speaker: Speaker) -> None:
        self._children = children
        self._view = view
        self._speaker = speaker

    def kill(self, target: Target) -> None:
        """SIGKILL a replica (its worker goes by its own lifeline), or a worker."""
        self._signal(target, signal.SIGKILL)

    def hang(self, target: Target) -> None:
        """SIGSTOP: the process is there and does nothing, as if it were stuck."""
        self._signal(target, signal.SIGSTOP)

    def resume(self, target: Target) -> None:
        """SIGCONT."""
        self._signal(target, signal.SIGCONT)

    def slow(self, replica: str, factor: float) -> None:
        """Through the scheduler, which tells the replica."""
        self._operate(replica, "slow", factor)

    def drain(self, replica: str, *, on: bool) -> None:
        """Through the scheduler, which tells the replica."""
        self._operate(replica, "drain" if on else "resume")

    def _operate(self, replica: str, action: str, factor: float = 1.0) -> None:
        self._child(replica)  # an unknown name is an error here, not silence there
        self._speaker.operate(Operate(replica=replica, action=action, factor=factor))

    def _signal(self, target: Target, number: signal.Signals) -> None:
        if target.kind is TargetKind.WORKER:
            self._signal_worker(target.id, number)
        elif not self._child(target.id).signal(number):
            message = f"replica {target.id} does not run now"
            raise AnyServeError(message, code="not_running")

    def _signal_worker(self, replica: str, number: signal.Signals) -> None:
        self._child(replica)
        worker = self._view.of(replica).worker
        if worker is None or not signal_process(worker, number):
            message = f"no running worker of {replica} is known"
            raise AnyServeError(message, code="not_running")

    def _child(self, replica: str) -> Child:
        child = self._children.get(replica_name(replica))
        if child is None:
            prefix = replica_name("")
            known = [n.removeprefix(prefix) for n in self._children if n.startswith(prefix)]
            hint = f"replicas of this cluster: {', '.join(known)}"
            raise UsageError(f"there is no replica {replica}", code="no_such_replica", hint=hint)
        return child


def signal_process(process: ProcessRecord, number: signal.Signals) -> bool:
    """Signal a process that is not our child, if it is still the one that was recorded."""
    if not process.runs():
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True
