"""What replicas say of themselves and of attempts, and what becomes of lost ones."""

from __future__ import annotations

from typing import Final

import msgspec

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import Inbox, Send
from anyserve.core.lifecycle import TicketState
from anyserve.core.messages import Code, ReplicaState
from anyserve.core.order import MS
from anyserve.core.scheduler.handbacks import HandBacks
from anyserve.core.scheduler.state import ReplicaView, Ticket

NO_BODY: Final = msgspec.Raw(b"{}")


class Replicas(HandBacks):
    """Registrations, credits, attempts, losses."""

    def _on_registration(self, registration: msg.Registration, now: int) -> None:
        if registration.v not in msg.SPOKEN_VERSIONS:
            text = f"replica {registration.replica} speaks version {registration.v} of the protocol"
            self._emit(ev.BusTrouble(kind="foreign", detail=f"{text}, not {msg.PROTOCOL_VERSION}"))
            return
        view = self._registry.replicas.get(registration.replica)
        if view is not None and not view.is_newer(registration):
            return
        if view is not None and view.incarnation != registration.incarnation:
            self._lose_bound(view, Code.REPLICA_LOST)
        before = None if view is None else (view.state, view.offers)
        was_lost = view is not None and view.state is ReplicaState.LOST
        same_life = view is not None and view.incarnation == registration.incarnation
        view = self._registry.register(registration, now)
        if was_lost and same_life:
            self._say_back(view, "connected again")
        if view.state is ReplicaState.STOPPED:
            self._lose_bound(view, Code.REPLICA_LOST)
        if before != (view.state, view.offers):
            self._review(now)
        self._fill(view, now)

    def _on_credit(self, credit: msg.Credit, now: int) -> None:
        view = self._registry.replicas.get(credit.replica)
        if view is None or view.incarnation != credit.incarnation:
            return
        if credit.epoch != self._epoch:
            view.heard_ns = now
            stale = msg.StaleEpoch(epoch=self._epoch)
            self._out.append(Send(Inbox.REPLICA, view.id, stale))
            return
        if not view.take_credit(credit, now):
            return
        self._registry.touch(view)
        if view.hushed is not None:
            self._welcome_back(view, now)
        if view.orphans:
            self._stop_orphans(view)
        if view.unacked:
            self._say_again(view, now)
        self._fill(view, now)

    def _welcome_back(self, view: ReplicaView, now: int) -> None:
        """It was lost for its silence (or ours: a process that stood still), and lives."""
        self._registry.mark_heard(view)
        self._say_back(view, "heard again")
        self._review(now)

    def _say_back(self, view: ReplicaView, how: str) -> None:
        """Who said that it was lost says that it is not: to itself nothing has changed."""
        self._emit(
            ev.ReplicaChanged(
                replica=view.id,
                state=view.state.value,
                incarnation=view.incarnation,
                detail=how,
            )
        )

    def _stop_orphans(self, view: ReplicaView) -> None:
        """Attempts that a silent replica kept, once their origins have gone on without them."""
        kept = []
        for orphan in view.orphans:
            request_id, attempt, submission = orphan
            ticket = self._tickets.get(request_id)
            if ticket is not None and ticket.submission == submission:
                kept.append(orphan)
            else:
                self._cancel_attempt(view, request_id, attempt, None)
        view.orphans = kept

    def _say_again(self, view: ReplicaView, now: int) -> None:
        """Send again what has had time to arrive and seems not to have."""
        for ordinal, unacked in view.unacked.items():
            if now - unacked.sent_ns <= self._rules.ack_ms * MS:
                continue
            unacked.sent_ns = now
            ticket = view.bound.get(unacked.id)
            if ticket is not None and ticket.attempt == unacked.attempt and ticket.delivery:
                self._out.append(Send(Inbox.REPLICA, view.id, ticket.delivery))
            else:
                code = self._why_stopped(unacked.id)
                self._cancel_attempt(view, unacked.id, unacked.attempt, ordinal, code)

    def _on_admitted(self, admitted: msg.Admitted, now: int) -> None:
        if admitted.id in self._settled:
            return
        view = self._registry.replicas.get(admitted.replica)
        if view is None or view.incarnation != admitted.incarnation:
            return
        view.heard_ns = now
        ticket = self._tickets.get(admitted.id)
        if ticket is None:
            self._track(view, admitted.id, admitted.attempt, admitted.submission, entered=True)
        elif ticket.state is TicketState.ENTERED and ticket.attempt == admitted.attempt:
            ticket.delivery = None

    def _on_started(self, started: msg.Started, now: int) -> None:
        ticket = self._current(started.id, started.attempt, started.replica)
        if ticket is None or not self._speaks_for(started.replica, started.incarnation, now):
            return
        if ticket.state is TicketState.ASSIGNED:
            ticket.go(TicketState.STARTED)
            self._note_arrived(ticket, started.replica)
            if ticket.request.body != NO_BODY:
                ticket.request = msg.changed(ticket.request, body=NO_BODY)

    def _note_arrived(self, ticket: Ticket, replica: str) -> None:
        """Its assignment need not be sent again."""
        delivery, ticket.delivery = ticket.delivery, None
        view = self._registry.replicas.get(replica)
        if view is not None and isinstance(delivery, msg.Assign):
            view.unacked.pop(delivery.ordinal, None)

    def _on_ended(self, ended: msg.Ended, now: int) -> None:
        if not self._speaks_for(ended.replica, ended.incarnation, now):
            return
        ticket = self._current(ended.id, ended.attempt, ended.replica)
        if ticket is None:
            return
        view = self._registry.replicas.get(ended.replica)
        if view is not None:
            view.bound.pop(ticket.id, None)
        if ended.status is msg.AttemptStatus.WORKER_DIED:
            self._count_death(ticket, started=ended.started)
            ticket.go(TicketState.LOST)
        else:
            self._rate.completed(ticket.request.capability, now)
            ticket.go(TicketState.ENDED)
            ticket.served_by = (ended.replica, ended.incarnation)
        ticket.replica = None
        ticket.delivery = None

    def _current(self, request_id: str, attempt: int, replica: str) -> Ticket | None:
        ticket = self._tickets.get(request_id)
        if ticket is None or ticket.attempt != attempt or ticket.replica != replica:
            return None
        return ticket

    def _on_gone(self, gone: msg.Gone, now: int) -> None:
        view = self._registry.replicas.get(gone.source)
        if view is not None and (gone.incarnation, gone.connection) == (
            view.incarnation,
            view.connection,
        ):
            if view.state is not ReplicaState.STOPPED:
                self._lose(view, now, "last will", silent=False)
            return
        self._gone_origins[gone.source, gone.incarnation] = (gone.connection, now)

    def _lose(self, view: ReplicaView, now: int, why: str, *, silent: bool) -> None:
        self._registry.mark_lost(view, now, silent=silent)
        self._emit(
            ev.ReplicaChanged(
                replica=view.id,
                state=ReplicaState.LOST.value,
                incarnation=view.incarnation,
                detail=why,
            )
        )
        if silent:
            view.orphans = [(one.id, one.attempt, one.submission) for one in view.bound.values()]
        self._lose_bound(view, Code.REPLICA_LOST)
        self._review(now)

    def _lose_bound(self, view: ReplicaView, code: Code) -> None:
        for ticket in list(view.bound.values()):
            started = ticket.state is not TicketState.ASSIGNED
            self._count_death(ticket, started=started)
            self._say_lost(ticket, code, started=started)
            ticket.go(TicketState.LOST)
            ticket.replica = None
            ticket.delivery = None
        view.bound.clear()

    def _on_holding(self, holding: msg.Holding, now: int) -> None:
        view = self._registry.replicas.get(holding.replica)
        if view is None or view.incarnation != holding.incarnation:
            return
        if holding.epoch != self._epoch:
            return
        view.heard_ns = now
        named = {(held.id, held.attempt) for held in holding.held}
        for held in holding.held:
            self._reconcile(view, held)
        for ticket in list(view.bound.values()):
            started = ticket.state is TicketState.STARTED or ticket.state is TicketState.ENTERED
            if started and (ticket.id, ticket.attempt) not in named and ticket.delivery is None:
                # It was there, and it is no longer: its end was said while we did not listen.
                view.bound.pop(ticket.id)
                ticket.replica = None
                ticket.go(TicketState.ENDED)
                ticket.served_by = (view.id, view.incarnation)

    def _reconcile(self, view: ReplicaView, held: msg.Held) -> None:
        """A replica says what it holds: keep what is ours or new to us, stop the rest."""
        ticket = self._tickets.get(held.id)
        if ticket is not None and self._was_first(ticket, held):
            self._release(ticket, cancel=True)
            self._hold(ticket, view, held.attempt, entered=held.entered)
            return
        if held.id in self._settled or held.id in self._cancelled:
            keep = False
        elif ticket is None:
            # Only its origin knows the request itself; should this attempt die, it says so again.
            keep = True
        else:
            keep = ticket.attempt == held.attempt or ticket.state is TicketState.QUEUED
            keep = keep and ticket.submission == held.submission
        if not keep:
            self._cancel_attempt(view, held.id, held.attempt, None, self._why_stopped(held.id))
        elif ticket is not None and ticket.state is TicketState.QUEUED:
            self._release(ticket, cancel=False)
            self._hold(ticket, view, held.attempt, entered=held.entered)
        elif ticket is None:
            self._track(view, held.id, held.attempt, held.submission, entered=held.entered)

    def _was_first(self, ticket: Ticket, held: msg.Held) -> bool:
        """Whether an earlier life's attempt runs, and ours began for want of knowing of it.

        The older one goes on: its tokens are more likely with the client already.
        """
        return (
            ticket.state in (TicketState.ASSIGNED, TicketState.STARTED)
            and ticket.submission == held.submission
            and held.started
            and held.attempt < ticket.attempt
        )

    def _track(
        self, view: ReplicaView, request_id: str, attempt: int, submission: int, *, entered: bool
    ) -> None:
        """Remember an attempt whose request was never seen here, so that its loss is noticed."""
        request = msg.Request(
            id=request_id, asked="", capability="", prompt_tokens=0, max_tokens=0, offered_ns=0
        )
        ticket = Ticket(request, submission, view.heard_ns)
        self._restore(ticket)
        self._tickets[request_id] = ticket
        self._hold(ticket, view, attempt, entered=entered)

    def _hold(self, ticket: Ticket, view: ReplicaView, attempt: int, *, entered: bool) -> None:
        ticket.go(TicketState.ENTERED if entered else TicketState.STARTED)
        ticket.attempt = attempt
        ticket.last_attempt = max(ticket.last_attempt, attempt)
        ticket.replica = view.id
        ticket.delivery = None
        view.bound[ticket.id] = ticket
