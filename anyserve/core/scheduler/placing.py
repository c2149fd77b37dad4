"""Where a request goes: queue, replica, entry, or rejection; and what a freed slot takes."""

from __future__ import annotations

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import Inbox, Send
from anyserve.core.lifecycle import TicketState
from anyserve.core.messages import Code
from anyserve.core.order import MS
from anyserve.core.scheduler.base import SchedulerBase
from anyserve.core.scheduler.state import NOBODY, ReplicaView, Ticket


class Placing(SchedulerBase):
    """Placing and binding."""

    def _place(self, ticket: Ticket, now: int) -> None:
        """Queue, bind, send to an entry, or reject: what the registry makes of this request."""
        capability = ticket.request.capability
        if self._registry.has_server(ticket, capability):
            self._queue(ticket, now)
        elif any(
            self._registry.has_server(ticket, rung) for rung in self._ladder.rungs(capability)
        ) and (entry := self._entry_for(ticket)):
            self._enter(ticket, entry, now)
        elif any(self._registry.servers(ticket.request, capability)) and ticket.refused_by:
            self._queue(ticket, now)
        elif self._registry.is_offered(capability) and not self._could_return(ticket, now):
            detail = f"{ticket.request.prompt_tokens} + {ticket.request.max_tokens} tokens"
            self._reject(ticket, Code.TOO_LONG, f"no replica of {capability} admits {detail}", now)
        elif capability not in self._registry.known:
            self._reject(ticket, Code.UNKNOWN_CAPABILITY, f"nobody ever offered {capability}", now)
        elif self._could_return(ticket, now):
            self._queue(ticket, now)
        else:
            self._reject(ticket, Code.NO_REPLICA, f"no replica offers {capability}", now)

    def _could_return(self, ticket: Ticket, now: int) -> bool:
        """Whether a replica that could serve may (re)appear within the patience."""
        patience = self._rules.wait_for_replica_ms * MS
        rungs = list(self._ladder.rungs(ticket.request.capability))
        if now - self._started_ns < patience and self._is_awaited(ticket.request, rungs):
            return True
        return any(
            self._registry.has_server(ticket, rung)
            or self._registry.may_return(ticket.request, rung, now, patience)
            for rung in rungs
        )

    def _is_awaited(self, request: msg.Request, rungs: list[str]) -> bool:
        """Whether somebody who could serve has yet to register with this young scheduler life."""
        if self._epoch > 1:
            return True  # who had registered with an earlier life is not known here
        return any(self._is_expected(request, rung) for rung in rungs)

    def _is_expected(self, request: msg.Request, rung: str) -> bool:
        """Whether a replica of the cluster that could serve it has yet to register here."""
        tokens = request.prompt_tokens + request.max_tokens
        return any(
            offer.capability == rung
            and (offer.limits.max_tokens is None or tokens <= offer.limits.max_tokens)
            for replica in self._spec.replicas
            if replica.id not in self._registry.replicas
            for offer in replica.offers
        )

    def _entry_for(self, ticket: Ticket) -> ReplicaView | None:
        ready = [
            view
            for view in self._registry.replicas.values()
            if view.takes_work and view.id not in ticket.excluded
        ]
        return min(ready, key=lambda view: (view.fill, view.id), default=None)

    def _enter(self, ticket: Ticket, view: ReplicaView, now: int) -> None:
        ticket.go(TicketState.ENTERED)
        attempt = self._next_attempt(ticket)
        ticket.replica = view.id
        view.bound[ticket.id] = ticket
        ticket.sent_ns = now
        ticket.delivery = msg.Entry(
            request=self._aged(ticket, now),
            attempt=attempt,
            submission=ticket.submission,
            epoch=self._epoch,
            incarnation=view.incarnation,
            delegations=ticket.delegations,
        )
        self._out.append(Send(Inbox.REPLICA, view.id, ticket.delivery))

    def _queue(self, ticket: Ticket, now: int) -> None:
        ticket.go(TicketState.QUEUED)
        if self._bind(ticket, now):
            return
        self._queues.put(ticket)
        self._note_servable(ticket, now)
        if self._explains(ticket.id):
            self._tell_queued(ticket)
        self._accept(ticket)

    def _tell_queued(self, ticket: Ticket) -> None:
        capability = ticket.request.capability
        self._emit(
            ev.RequestQueued(
                id=ticket.id,
                capability=capability,
                depth=self._queues.depth(capability),
                received_ns=ticket.received_ns,
                submission=ticket.submission,
            )
        )

    def _note_servable(self, ticket: Ticket, now: int) -> None:
        if self._registry.has_server(ticket, ticket.request.capability):
            self._mark_servable(ticket)
        elif ticket.unservable_since_ns is None:
            ticket.unservable_since_ns = now
            self._unservable[ticket.id] = ticket

    def _bind(self, ticket: Ticket, now: int) -> bool:
        deadline = self._deadline_ns(ticket)
        if deadline is not None and now >= deadline:
            return False
        view = self._router.route(ticket, self._attempt_after(ticket), self._out)
        if view is None:
            return False
        self._queues.remove(ticket)
        self._mark_servable(ticket)
        ticket.go(TicketState.ASSIGNED)
        attempt = self._next_attempt(ticket)
        ticket.replica = view.id
        ticket.sent_ns = now
        view.bound[ticket.id] = ticket
        ordinal = view.assign(ticket.id, attempt, now)
        self._turns += 1
        view.turn = self._turns
        self._registry.touch(view)
        ticket.delivery = msg.Assign(
            request=self._aged(ticket, now),
            attempt=attempt,
            submission=ticket.submission,
            incarnation=view.incarnation,
            epoch=self._epoch,
            ordinal=ordinal,
            delegations=ticket.delegations,
        )
        self._out.append(Send(Inbox.REPLICA, view.id, ticket.delivery))
        return True

    def _next_attempt(self, ticket: Ticket) -> int:
        ticket.attempt = ticket.last_attempt = self._attempt_after(ticket)
        return ticket.attempt

    def _attempt_after(self, ticket: Ticket) -> int:
        """The number that its next attempt gets."""
        return max(ticket.last_attempt, self._epoch * msg.ATTEMPTS_PER_EPOCH) + 1

    def _aged(self, ticket: Ticket, now: int) -> msg.Request:
        """The request with what is left of its deadline, for a host with another clock."""
        request = ticket.request
        if request.deadline is None or (at_ns := self._deadline_ns(ticket)) is None:
            return request
        left_ms = max(0, (at_ns - now) // MS)
        deadline = msg.changed(request.deadline, left_ms=left_ms)
        return msg.changed(request, deadline=deadline)

    def _fill(self, view: ReplicaView, now: int) -> None:
        """Give a replica's credit to the best waiting requests over all queues it can serve."""
        if self._queues.empty:
            return
        while view.takes_work and view.credit > 0:
            best: Ticket | None = None
            for capability in view.capabilities:
                if not self._queues.depth(capability):
                    continue
                ticket = self._queues.first(
                    capability, lambda ticket: self._fits(ticket, view, now)
                )
                if ticket is not None and (best is None or ticket.order < best.order):
                    best = ticket
            if best is None or not self._bind(best, now):
                return

    def _fits(self, ticket: Ticket, view: ReplicaView, now: int) -> bool:
        deadline = self._deadline_ns(ticket)
        return (deadline is None or now < deadline) and self._router.eligible(ticket, view)

    def _review(self, now: int) -> None:
        """The registry changed: look again at who can still, or again, be served."""
        for ticket in list(self._unservable.values()):
            if self._registry.has_server(ticket, ticket.request.capability):
                self._note_servable(ticket, now)
            elif any(
                self._registry.has_server(ticket, rung)
                for rung in self._ladder.rungs(ticket.request.capability)
            ):
                self._release(ticket, cancel=False)
                self._place(ticket, now)
        for capability, depth in self._queues.depths().items():
            if depth:
                self._review_queue(capability, now)

    def _review_queue(self, capability: str, now: int) -> None:
        for ticket in list(self._queues.waiting(capability)):
            if ticket.refused_by and not self._registry.has_server(ticket, capability):
                ticket.refused_by = NOBODY
                if self._bind(ticket, now):
                    continue
            self._note_servable(ticket, now)
