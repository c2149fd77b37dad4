"""What the supervisor knows of its cluster from the bus: replicas, workers, the run. No I/O."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyserve.core.events import Envelope, IngressOpened, RunEnded, RunStarted, WorkerChanged
from anyserve.core.messages import Registration, ReplicaState, SchedulerState
from anyserve.runtime.bus.outbox import BatchReader
from anyserve.runtime.clusters import ProcessRecord, process_record

_LOG = logging.getLogger(__name__)
_SERVING: Final = frozenset({ReplicaState.READY, ReplicaState.SATURATED})
_ALIVE: Final = frozenset({"started", "loading", "ready"})
_WANTED: Final = (b'"worker.changed"', b'"run.started"', b'"run.ended"', b'"ingress.opened"')
"""The few events of interest: the others, thousands a second, are not even decoded."""


@dataclass(slots=True)
class ReplicaView:
    """One replica: its last registration, its worker, and that worker's last word."""

    registration: Registration | None = None
    worker: ProcessRecord | None = None
    worker_state: str = ""


class ClusterView:
    """Folds bus messages. `on_change` is called after each that said something new.

    `find_process` names the process that has a pid now; the worker was alive when it said so.
    """

    def __init__(
        self,
        prefix: str,
        on_change: Callable[[str, str], None],
        find_process: Callable[[str, int], ProcessRecord | None] = process_record,
    ) -> None:
        self.replicas: dict[str, ReplicaView] = {}
        self.doors: dict[str, IngressOpened] = {}
        """Open front doors, by the name of their ingress."""
        self.scheduler: SchedulerState | None = None
        self.run_started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.run_ended = asyncio.Event()
        self._prefix = prefix
        self._on_change = on_change
        self._find_process = find_process
        self._changed = asyncio.Event()
        self._registrations: BatchReader[Registration] = BatchReader(Registration)
        self._states: BatchReader[SchedulerState] = BatchReader(SchedulerState)
        self._envelopes: BatchReader[Envelope] = BatchReader(Envelope)

    @property
    def filters(self) -> tuple[tuple[str, int], ...]:
        """What to subscribe to, with QoS."""
        prefix = self._prefix
        return (
            (f"{prefix}/replica/+/reg", 1),
            (f"{prefix}/sched/state", 1),
            (f"{prefix}/event/+", 0),
        )

    def on_message(self, topic: str, payload: bytes, _retain: bool) -> None:  # noqa: FBT001 - the signature of a bus callback
        """Take one message."""
        level = topic.removeprefix(self._prefix)
        if level.startswith("/event/"):
            if any(word in payload for word in _WANTED):
                for envelope in self._envelopes.read(topic, payload):
                    self._on_event(envelope)
        elif level.startswith("/replica/"):
            for registration in self._registrations.read(topic, payload):
                self._on_registration(registration)
        else:
            for state in self._states.read(topic, payload):
                if self.scheduler is None or state.epoch > self.scheduler.epoch:
                    self.scheduler = state
                    self._wake()

    def of(self, replica: str) -> ReplicaView:
        """The view of a replica, empty where nothing was heard of it."""
        return self.replicas.setdefault(replica, ReplicaView())

    async def until_serving(self, replica: str, incarnation: int) -> None:
        """Return once this life of the replica, or a later one, takes requests."""
        while not self._serves(replica, incarnation):
            self._changed.clear()
            await self._changed.wait()

    async def until_open(self, ingress: str) -> None:
        """Return once the doors of this ingress are open."""
        while ingress not in self.doors:
            self._changed.clear()
            await self._changed.wait()

    def _serves(self, replica: str, incarnation: int) -> bool:
        known = self.of(replica).registration
        return known is not None and known.incarnation >= incarnation and known.state in _SERVING

    def _on_registration(self, new: Registration) -> None:
        view = self.of(new.replica)
        if view.registration is not None and _age(new) <= _age(view.registration):
            return
        view.registration = new
        self._wake()

    def _on_event(self, envelope: Envelope) -> None:
        match envelope.event:
            case WorkerChanged() as changed:
                self._on_worker(changed)
            case IngressOpened() as opened:
                self.doors.pop(envelope.source, None)
                if opened.http or opened.grpc:
                    self.doors[envelope.source] = opened
                self._wake()
            case RunStarted():
                if not self.run_started.done():
                    self.run_started.set_result(envelope.t)
            case RunEnded():
                self.run_ended.set()
            case _:
                pass

    def _on_worker(self, changed: WorkerChanged) -> None:
        view = self.of(changed.replica)
        view.worker_state = changed.state
        if changed.state in _ALIVE and changed.pid:
            if view.worker is None or view.worker.pid != changed.pid:
                view.worker = self._find_process(f"worker {changed.replica}", changed.pid)
        elif view.worker is not None and changed.pid in {0, view.worker.pid}:
            view.worker = None
        self._on_change(changed.replica, f"worker {changed.state} {changed.detail}".rstrip())

    def _wake(self) -> None:
        self._changed.set()


def _age(registration: Registration) -> tuple[int, int, int]:
    return (registration.incarnation, registration.connection, registration.revision)
