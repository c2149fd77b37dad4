"""Three of the four ways back: delegate, refuse, return. `replicas` has the fourth, lost."""

from __future__ import annotations

from typing import TypeVar

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.lifecycle import TicketState
from anyserve.core.messages import Code
from anyserve.core.order import MS
from anyserve.core.scheduler.registry import view_serves
from anyserve.core.scheduler.state import NOBODY, Ticket
from anyserve.core.scheduler.submissions import Submissions

H = TypeVar("H", bound=msg.HandBack)


class HandBacks(Submissions):
    """Requests that a living replica gives back."""

    def _on_delegate(self, back: msg.Delegate, now: int) -> None:
        ticket = self._hand_back(back, now)
        if ticket is None:
            return
        self._take_back(ticket, back, now)
        counted = ticket.delegated_at >= back.attempt
        ticket.overload = back.reason is msg.DelegateReason.OVERLOAD
        if ticket.overload or self._contradicts_registry(back):
            ticket.excluded |= {back.replica}
        if not counted and ticket.delegations >= self._spec.delegation.limit:
            detail = f"{back.replica} cannot serve it ({back.reason.value})"
            self._reject(ticket, Code.DELEGATION_EXHAUSTED, detail, now)
            return
        rung = self._nearest_rung(ticket, back.min_rung, now)
        if rung is None:
            self._reject(ticket, *self._why_no_rung(ticket, back), now)
            return
        if not counted:
            ticket.delegations += 1
            ticket.delegated_at = back.attempt
        self._emit_delegated(ticket, back, rung)
        ticket.request = msg.changed(ticket.request, capability=rung)
        self._persist_counters(ticket)
        self._queue(ticket, now)
        if ticket.state is not TicketState.QUEUED:
            self._accept(ticket)

    def _on_refuse(self, back: msg.Refuse, now: int) -> None:
        ticket = self._hand_back(back, now)
        if ticket is None:
            return
        self._take_back(ticket, back, now)
        ticket.refusals += 1
        ticket.refused_by |= {back.replica}
        self._persist_counters(ticket)
        self._emit_reentry(ticket, "refuse", ticket.refusals, back.reason.value, back)
        if ticket.refusals > self._rules.refuse_limit:
            self._reject(ticket, Code.REFUSE_EXHAUSTED, f"last by {back.replica}", now)
            return
        if not self._registry.has_server(ticket, ticket.request.capability):
            ticket.refused_by = NOBODY
        self._place(ticket, now)

    def _on_return(self, back: msg.Return, now: int) -> None:
        ticket = self._hand_back(back, now)
        if ticket is None:
            return
        self._take_back(ticket, back, now)
        if ticket.returned_at < back.attempt:
            ticket.returns += 1
            ticket.returned_at = back.attempt
            self._persist_counters(ticket)
        self._emit_reentry(ticket, "return", ticket.returns, "draining", back)
        if ticket.returns > self._rules.return_limit:
            self._reject(ticket, Code.RETURN_EXHAUSTED, f"last by {back.replica}", now)
        else:
            self._place(ticket, now)

    def _hand_back(self, back: H, now: int) -> Ticket | None:
        """The ticket that comes back, released; None: the message is stale or was said before."""
        if back.request.id in self._settled:
            return None
        if not self._speaks_for(back.replica, back.incarnation, now):
            return None
        ticket = self._tickets.get(back.id)
        if ticket is None:
            return self._adopt(back, now)
        if not _is_current(ticket, back):
            if ticket.submission == back.submission:
                self._answer_again(ticket)  # its origin asked the replica, where it is no more
            return None
        self._release(ticket, cancel=False)
        return ticket

    def _adopt(self, back: H, now: int) -> Ticket | None:
        """The first that is heard here of a request: it entered at the replica that hands it back.

        What an earlier scheduler life had bound is not taken up: its origin submits it again.
        """
        if back.attempt != msg.ENTRY_ATTEMPT:
            return None
        if back.id in self._cancelled:
            self._reject_unknown(back.request, back.submission, Code.CLIENT_CANCELLED, "", now)
            return None
        return self._new_ticket(back.request, back.submission, now)

    def _take_back(self, ticket: Ticket, back: msg.HandBack, now: int) -> None:
        self._know(ticket, back.request, now)
        ticket.last_attempt = max(ticket.last_attempt, back.attempt)
        ticket.received_ns = now

    def _contradicts_registry(self, back: msg.Delegate) -> bool:
        """Whether the replica cannot serve what its registration admits: it would be chosen again.

        Where it registered another rung only, it may well be the one that serves that rung.
        """
        view = self._registry.replicas.get(back.replica)
        return view is None or view_serves(view, back.request, back.request.capability)

    def _emit_delegated(self, ticket: Ticket, back: msg.Delegate, rung: str) -> None:
        self._emit(
            ev.RequestDelegated(
                id=ticket.id,
                attempt=back.attempt,
                replica=back.replica,
                reason=back.reason.value,
                from_capability=ticket.request.capability,
                to_capability=rung,
                count=ticket.delegations,
                detail=back.detail,
            )
        )

    def _nearest_rung(self, ticket: Ticket, min_rung: str, now: int) -> str | None:
        """The lowest rung at or above `min_rung` that somebody serves now or soon; never down."""
        current = ticket.request.capability
        start = min_rung if self._ladder.is_at_or_above(min_rung, current) else current
        rungs = list(self._ladder.rungs(start))
        for rung in rungs:
            if self._registry.has_server(ticket, rung):
                return rung
        patience = self._rules.wait_for_replica_ms * MS
        for rung in rungs:
            if self._registry.may_return(ticket.request, rung, now, patience):
                return rung
        if now - self._started_ns < patience:  # a young life, to which not all have registered yet
            for rung in rungs:
                if self._is_expected(ticket.request, rung):
                    return rung
        return None

    def _why_no_rung(self, ticket: Ticket, back: msg.Delegate) -> tuple[Code, str]:
        asked = ticket.request.capability
        if back.reason is msg.DelegateReason.OVERLOAD:
            return Code.QUEUE_FULL, f"{back.replica} is full and nothing above {asked} is offered"
        offered = any(self._registry.is_offered(rung) for rung in self._ladder.rungs(asked))
        if offered:
            return Code.TOO_LONG, f"no replica of {asked} or above admits it"
        if not any(rung in self._registry.known for rung in self._ladder.rungs(asked)):
            return Code.UNKNOWN_CAPABILITY, f"nobody ever offered {asked}"
        return Code.NO_REPLICA, f"no replica offers {asked} or anything above it"


def _is_current(ticket: Ticket, back: msg.HandBack) -> bool:
    """Whether the ticket is bound to the very attempt that is handed back, or was to one that ended
    unheard: how it ended is said only now."""
    if (ticket.submission, ticket.attempt) != (back.submission, back.attempt):
        return False
    if ticket.state is TicketState.ENDED:
        place = (back.replica, back.incarnation)
        return ticket.end_code is None and ticket.served_by == place
    bound = (TicketState.ASSIGNED, TicketState.STARTED, TicketState.ENTERED)
    return ticket.state in bound and ticket.replica == back.replica
