"""What time does: heartbeats missed, waits ended, messages said again, memory swept."""

from __future__ import annotations

from typing import Final

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import Inbox, JournalRecord, Send, SetTimer
from anyserve.core.inputs import BusDown, BusUp, Pressure, Wake
from anyserve.core.lifecycle import TicketState
from anyserve.core.messages import Code, ReplicaState
from anyserve.core.order import MS
from anyserve.core.scheduler.replicas import Replicas
from anyserve.core.scheduler.state import Ticket
from anyserve.core.seen import split_request_id

SWEEP_EVERY_NS: Final = 10_000 * MS


class Timekeeping(Replicas):
    """Everything that happens because time passed, or stood still."""

    def _on_wake(self, wake: Wake, now: int) -> None:  # noqa: ARG002
        self._out.append(SetTimer(now + self._rules.heartbeat_ms * MS))
        if self._frozen_until_ns is not None:
            if self._frozen_until_ns < 0 or now < self._frozen_until_ns:
                return
            self._frozen_until_ns = None
        self._check_heartbeats(now)
        self._check_waiting(now)
        self._check_origins(now)
        self._say_entries_again(now)
        if now - self._swept_ns > SWEEP_EVERY_NS:
            self._swept_ns = now
            self._sweep(now)
        queues = {name: depth for name, depth in self._queues.depths().items() if depth}
        bound = sum(len(view.bound) for view in self._registry.replicas.values())
        self._emit(ev.SchedulerLoad(queues=queues, bound=bound))

    def _check_heartbeats(self, now: int) -> None:
        silent_ns = self._rules.lost_after_ms * MS
        for view in list(self._registry.replicas.values()):
            silent = now - view.heard_ns > silent_ns
            if silent and view.state not in (ReplicaState.LOST, ReplicaState.STOPPED):
                why = f"no heartbeat for {self._rules.lost_after_ms} ms"
                self._lose(view, now, why, silent=True)

    def _check_waiting(self, now: int) -> None:
        patience = self._rules.wait_for_replica_ms * MS
        for ticket in list(self._unservable.values()):
            since = ticket.unservable_since_ns
            if since is not None and now - since >= patience:
                capability = ticket.request.capability
                detail = f"none of {capability} came within {self._rules.wait_for_replica_ms} ms"
                self._reject(ticket, Code.NO_REPLICA, detail, now)
        for capability, depth in self._queues.depths().items():
            if depth:
                self._expire(capability, now)
                self._ask_for_slots(capability)

    def _ask_for_slots(self, capability: str) -> None:
        """Replicas whose own entry queue takes every freed slot leave one to the queue here."""
        for replica in self._registry.offering(capability):
            if self._registry.replicas[replica].waiting:
                self._out.append(Send(Inbox.REPLICA, replica, msg.Yield(epoch=self._epoch)))

    def _expire(self, capability: str, now: int) -> None:
        for ticket in list(self._queues.waiting(capability)):
            deadline = self._deadline_ns(ticket)
            if deadline is not None and now >= deadline:
                self._reject(ticket, Code.DEADLINE_EXCEEDED, "while it waited", now)

    def _check_origins(self, now: int) -> None:
        for key, (_, since) in list(self._gone_origins.items()):
            if now - since < self._rules.lost_after_ms * MS:
                continue
            del self._gone_origins[key]
            for ticket in list(self._tickets.values()):
                origin, incarnation, _ = split_request_id(ticket.id)
                if (origin, incarnation) == key:
                    self._forget(ticket, Code.ORIGIN_LOST, now)

    def _say_entries_again(self, now: int) -> None:
        for view in self._registry.replicas.values():
            for ticket in view.bound.values():
                if (
                    isinstance(ticket.delivery, msg.Entry)
                    and now - ticket.sent_ns > self._rules.ack_ms * MS
                ):
                    ticket.sent_ns = now
                    self._out.append(Send(Inbox.REPLICA, view.id, ticket.delivery))

    def _sweep(self, now: int) -> None:
        """Forget what no origin settled within the life of its request."""
        for ticket in list(self._tickets.values()):
            if now - ticket.received_ns > 2 * ticket.request.lifetime_ms * MS:
                self._forget(ticket, Code.STALE, now)
        limit_ns = 2 * self._spec.request_lifetime_ms * MS
        for request_id, since in list(self._cancelled.items()):
            if now - since > limit_ns:
                del self._cancelled[request_id]

    def _forget(self, ticket: Ticket, code: Code, now: int) -> None:
        self._release(ticket, cancel=True, code=code)
        if ticket.state is not TicketState.ENDED:
            self._emit(ev.RequestRejected(id=ticket.id, code=code.value, received_ns=now))
        self._tickets.pop(ticket.id, None)
        self._settled.add(ticket.id)
        if self._counters.pop(ticket.id, None) is not None:
            self._persist(JournalRecord(kind="settled", id=ticket.id))

    def _on_bus_down(self, down: BusDown, now: int) -> None:  # noqa: ARG002
        self._frozen_until_ns = -1

    def _on_bus_up(self, up: BusUp, now: int) -> None:  # noqa: ARG002
        grace_ms = self._rules.heartbeat_ms + self._rules.lost_after_ms
        self._frozen_until_ns = now + grace_ms * MS
        for view in self._registry.replicas.values():
            view.heard_ns = max(view.heard_ns, now)
        self._announce()

    def _on_pressure(self, pressure: Pressure, now: int) -> None:  # noqa: ARG002
        self._pressure = pressure.high
