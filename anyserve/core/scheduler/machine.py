"""`Scheduler.handle(now, message) -> effects`: the rules of `docs/protocol.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import Effect, JournalRecord, SetTimer
from anyserve.core.inputs import BusDown, BusUp, Pressure, Wake
from anyserve.core.machine import Explains, explain_all
from anyserve.core.order import MS
from anyserve.core.policies import RoutingPolicy
from anyserve.core.randomness import Rng
from anyserve.core.scheduler.state import ReplicaView, Ticket
from anyserve.core.scheduler.timekeeping import Timekeeping
from anyserve.core.spec import ClusterSpec

SchedulerInput = msg.SchedulerInbound | Wake | BusUp | BusDown | Pressure


class Scheduler(Timekeeping):
    """One life of the scheduler. Construct it, `replay` its journal, `start`, then `handle`.

    Args:
        spec: the cluster.
        policy: decides among candidates.
        rng: the random source of policies.
        incarnation: of this process.
        boot: names the host life whose monotonic clock `now` is.
        explains: of which requests all is told; of all, unless events are sampled.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        policy: RoutingPolicy,
        rng: Rng,
        *,
        incarnation: int = 1,
        boot: str = "",
        explains: Explains = explain_all,
    ) -> None:
        super().__init__(spec, policy, rng, incarnation=incarnation, boot=boot, explains=explains)
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            msg.Cancel: self._on_cancel,
            msg.Operate: self._on_operate,
            msg.Delegate: self._on_delegate,
            msg.Refuse: self._on_refuse,
            msg.Return: self._on_return,
            msg.Holding: self._on_holding,
            msg.Admitted: self._on_admitted,
            msg.Registration: self._on_registration,
            msg.Gone: self._on_gone,
            Wake: self._on_wake,
            BusUp: self._on_bus_up,
            BusDown: self._on_bus_down,
            Pressure: self._on_pressure,
        }

    @property
    def epoch(self) -> int:
        """The number of this life."""
        return self._epoch

    def replay(self, records: Iterable[JournalRecord]) -> None:
        """Take over what earlier lives wrote to the journal."""
        for record in records:
            self._replayed += 1
            if record.kind == "epoch":
                self._epoch = max(self._epoch, record.epoch)
                if self._journal_base is None:
                    self._journal_base = record.epoch
            elif record.kind == "counters":
                self._counters[record.id] = record
            else:
                self._counters.pop(record.id, None)

    def journal(self) -> list[JournalRecord]:
        """The shortest journal that says what this life knows: for compaction."""
        base = self._epoch if self._journal_base is None else self._journal_base
        head = [JournalRecord(kind="epoch", epoch=base)]
        if base != self._epoch:
            head.append(JournalRecord(kind="epoch", epoch=self._epoch))
        return head + list(self._counters.values())

    def start(self, now: int, *, seen_epoch: int = 0) -> list[Effect]:
        """Begin this life: its epoch is above the journal's and the retained `seen_epoch`."""
        had_journal = self._journal_base is not None
        self._epoch = max(self._epoch, seen_epoch) + 1
        if not had_journal:
            self._journal_base = self._epoch
        self._started_ns = self._swept_ns = now
        self._persist(JournalRecord(kind="epoch", epoch=self._epoch))
        self._announce()
        self._emit(
            ev.SchedulerStarted(
                epoch=self._epoch,
                policy=self._rules.policy,
                replayed=self._replayed if had_journal else -1,
            )
        )
        self._out.append(SetTimer(now + self._rules.heartbeat_ms * MS))
        return self._take()

    def handle(self, now: int, message: SchedulerInput) -> list[Effect]:
        """Fold one input. Unknown senders and stale messages change nothing."""
        # Those that every request sends first: compiled, to tell them apart here costs nothing.
        if isinstance(message, msg.Credit):
            self._on_credit(message, now)
        elif isinstance(message, msg.Submit):
            self._on_submit(message, now)
        elif isinstance(message, msg.Started):
            self._on_started(message, now)
        elif isinstance(message, msg.Ended):
            self._on_ended(message, now)
            if message.credit is not None:
                self._on_credit(message.credit, now)
        elif isinstance(message, msg.Settled):
            self._on_settled(message, now)
        else:
            self._handlers[type(message)](message, now)
        return self._take()

    @property
    def tickets(self) -> dict[str, Ticket]:
        """Every request that is not settled; for checks and status, not to be changed."""
        return self._tickets

    @property
    def replicas(self) -> dict[str, ReplicaView]:
        """Every replica heard of; for checks and status, not to be changed."""
        return self._registry.replicas

    def depth(self, capability: str) -> int:
        """How many wait for a capability."""
        return self._queues.depth(capability)

    def eligible(self, ticket: Ticket, view: ReplicaView) -> bool:
        """Whether a queued ticket could go to this replica now (invariant 8 forbids it)."""
        return self._router.eligible(ticket, view)
