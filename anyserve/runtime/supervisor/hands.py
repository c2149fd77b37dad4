"""What a fault or an operator does to the processes of a cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from anyserve.core.messages import Operate
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.clusters import ProcessRecord
from anyserve.runtime.control import LineClient
from anyserve.runtime.node_control import (
    ConnectionFault,
    DisturbNode,
    NodeRequest,
    RateNode,
    check_rate,
)
from anyserve.runtime.supervisor.brokers import ClusterBroker
from anyserve.runtime.supervisor.children import Child
from anyserve.runtime.supervisor.deaths import PLAYER
from anyserve.runtime.supervisor.faults import Target, TargetKind
from anyserve.runtime.supervisor.link import Speaker
from anyserve.runtime.supervisor.nodes import replica_name
from anyserve.runtime.supervisor.view import ClusterView

BROKER: Final = "broker"
_NODE_S: Final = 2.0
"""A node that hangs does not answer; whoever wants something of it must not hang with it."""


class ClusterHands:
    """`FaultHands` on real processes."""

    def __init__(
        self,
        children: Mapping[str, Child],
        view: ClusterView,
        speaker: Speaker,
        broker: ClusterBroker,
        node_socket: Callable[[str], Path],
    ) -> None:
        self._children = children
        self._view = view
        self._speaker = speaker
        self._broker = broker
        self._node_socket = node_socket

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

    async def disturb(self, replica: str, how: ConnectionFault) -> None:
        """Through the control socket of the replica's process."""
        child = self._child(replica)
        await self._ask(child.name, DisturbNode(how=how))

    async def rate(self, factor: float) -> None:
        """Through the control socket of the player."""
        check_rate(factor)
        player = self._children.get(PLAYER)
        if player is None or player.pid is None:
            message = "no traffic is played, so it has no rate"
            hint = "a cluster that is kept has played it; send requests by `anyserve send`"
            raise UsageError(message, code="no_traffic", hint=hint)
        await self._ask(PLAYER, RateNode(factor=factor))

    def crash(self, name: str, down_s: float) -> None:
        """SIGKILL a process, as `status` calls it, or the broker; it is back after `down_s`."""
        if name == BROKER:
            self._broker.crash(down_s)
        elif not self.process(name).crash(down_s):
            raise AnyServeError(f"{name} does not run now", code="not_running")

    def process(self, name: str) -> Child:
        """The process that `status` calls so; a replica's id does, too.

        Raises:
            UsageError: there is none.
        """
        child = self._children.get(name) or self._children.get(replica_name(name))
        if child is None:
            hint = f"processes of this cluster: {', '.join(self._children)}, {BROKER}"
            raise UsageError(f"there is no process {name!r}", code="no_such_process", hint=hint)
        return child

    async def _ask(self, name: str, request: NodeRequest) -> None:
        socket = self._node_socket(name)
        async with LineClient(socket, timeout_s=_NODE_S, who=name) as client:
            await client.ask(request)

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
