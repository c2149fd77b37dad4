"""`Replica.handle(now, message) -> effects`: serve, delegate or reject; never call a replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyserve.core import messages as msg
from anyserve.core.effects import Effect, SetTimer
from anyserve.core.inputs import (
    BusDown,
    BusUp,
    Drain,
    Stepped,
    Stopping,
    Wake,
    WorkerDied,
    WorkerReady,
)
from anyserve.core.machine import Explains, explain_all
from anyserve.core.messages import ReplicaState
from anyserve.core.replica.base import NO_EFFECTS
from anyserve.core.replica.timekeeping import Timekeeping
from anyserve.core.spec import ClusterSpec, ReplicaSpec

ReplicaInput = (
    msg.ReplicaInbound
    | Wake
    | BusUp
    | BusDown
    | WorkerReady
    | WorkerDied
    | Stepped
    | Drain
    | Stopping
)


class Replica(Timekeeping):
    """One life of a replica. `start` it, then `handle`.

    Args:
        spec: what it offers and its limits.
        cluster: the rules that all obey.
        incarnation: of this process.
        boot: names the host life whose monotonic clock `now` is.
        pid: of the process, for people.
        explains: of which requests all is told.
    """

    def __init__(
        self,
        spec: ReplicaSpec,
        cluster: ClusterSpec,
        *,
        incarnation: int = 1,
        boot: str = "",
        pid: int = 0,
        explains: Explains = explain_all,
    ) -> None:
        super().__init__(
            spec, cluster, incarnation=incarnation, boot=boot, pid=pid, explains=explains
        )
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            msg.Entry: self._on_entry,
            msg.CancelAttempt: self._on_cancel_attempt,
            msg.Cancel: self._on_cancel,
            msg.Repair: self._on_repair,
            msg.Yield: self._on_yield,
            msg.Control: self._on_control,
            msg.StaleEpoch: self._on_stale_epoch,
            msg.SchedulerState: self._on_scheduler_state,
            msg.Registration: self._on_registration,
            BusUp: self._on_bus_up,
            BusDown: self._on_bus_down,
            WorkerReady: self._on_worker_ready,
            WorkerDied: self._on_worker_died,
            Drain: self._on_drain,
            Stopping: self._on_stopping,
        }

    def start(self, now: int) -> list[Effect]:
        """Begin: say that it starts, and set the heartbeat."""
        self._out = []
        self._tokens_since_ns = now
        self._plan_beat(now)
        self._register()
        self._emit_state()
        return self._take(now)

    def handle(self, now: int, message: ReplicaInput) -> list[Effect]:
        """Fold one input. What is stale, repeated or meant for another life changes nothing."""
        self._out = []
        # Those that every request sends first: compiled, to tell them apart here costs nothing.
        if isinstance(message, Stepped):
            self._on_stepped(message, now)
        elif isinstance(message, msg.Assign):
            self._on_assign(message, now)
        elif isinstance(message, msg.Settled):
            self._on_settled(message, now)
        elif isinstance(message, Wake):
            self._on_wake(message, now)
        else:
            self._handlers[type(message)](message, now)
        return self._take(now)

    @property
    def state(self) -> ReplicaState:
        """Where it is in its life."""
        return self._state

    @property
    def running(self) -> int:
        """Attempts in the engine."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests in the entry queue."""
        return self._n_waiting

    @property
    def held(self) -> int:
        """Assignments held within the prefetch."""
        return self._n_held

    @property
    def credit_outstanding(self) -> int:
        """Credit that the scheduler may still use."""
        return self._credits.outstanding

    @property
    def idle(self) -> bool:
        """Nothing runs or waits here."""
        return not (self._running or self._n_held or self._n_waiting)

    def _take(self, now: int) -> list[Effect]:
        if self._credits.urgent and self._epoch:
            self._report_now()
        if self._due.soonest_ns != self._timer_ns:
            self._set_timer(max(now, self._due.soonest_ns))
        out, self._out = self._out, NO_EFFECTS
        return out

    def _set_timer(self, at_ns: int) -> None:
        if at_ns != self._timer_ns:
            self._timer_ns = at_ns
            self._out.append(SetTimer(at_ns))
