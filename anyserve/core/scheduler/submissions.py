"""What origins say: new requests, recoveries, cancels, settlements."""

from __future__ import annotations

from typing import Final

from anyserve.core import messages as msg
from anyserve.core.effects import Inbox, JournalRecord, Send
from anyserve.core.lifecycle import TicketState
from anyserve.core.messages import Code
from anyserve.core.order import MS
from anyserve.core.scheduler.placing import Placing
from anyserve.core.scheduler.state import Ticket
from anyserve.core.seen import split_request_id

MAX_TOMBSTONES: Final = 100_000
"""Cancels of unknown requests that are remembered."""


class Submissions(Placing):
    """Messages from origins."""

    def _on_submit(self, submit: msg.Submit, now: int) -> None:
        request = submit.request
        if request.id in self._settled:
            return
        self._hear_origin(request.id)
        if request.id in self._cancelled:
            self._reject_unknown(request, submit.submission, Code.CLIENT_CANCELLED, "", now)
            return
        ticket = self._tickets.get(request.id)
        if ticket is None:
            self._take_new(submit, now)
        elif submit.submission > ticket.submission and ticket.cancelled_by is not None:
            ticket.submission = submit.submission
            self._answer_again(ticket)
        elif submit.submission > ticket.submission:
            self._resubmit(ticket, submit, now)
        elif submit.submission == ticket.submission:
            self._answer_again(ticket)

    def _take_new(self, submit: msg.Submit, now: int) -> None:
        request = submit.request
        if request.boot == self._boot and now - request.offered_ns > request.lifetime_ms * MS:
            self._reject_unknown(request, submit.submission, Code.STALE, "older than its life", now)
            return
        ticket = self._new_ticket(request, submit.submission, now)
        ticket.last_attempt = max(ticket.last_attempt, submit.last_attempt)
        refusal = self._refuse_new(ticket) if submit.submission == 1 else None
        if submit.submission > 1 and ticket.recoveries < submit.submission - 1:
            ticket.recoveries = submit.submission - 1
            self._persist_counters(ticket)
        if ticket.recoveries > self._rules.recovery_limit:
            refusal = (self._loss_code(ticket), "its replica was lost once too often")
        if refusal is not None:
            self._reject(ticket, refusal[0], refusal[1], now)
        else:
            self._place(ticket, now)

    def _refuse_new(self, ticket: Ticket) -> tuple[Code, str] | None:
        capability = ticket.request.capability
        if self._pressure:
            return Code.OVERLOADED, "the scheduler's incoming backlog is above its limit"
        limit = self._queue_limit(capability)
        if ticket.id in self._counters:
            return None  # an earlier life had it, and it came back: no longer new
        if self._queues.depth(capability) >= limit:
            return Code.QUEUE_FULL, f"{limit} requests wait for {capability} already"
        return None

    def _queue_limit(self, capability: str) -> int:
        spec = self._capabilities.get(capability)
        return spec.queue_limit if spec is not None else 1024

    def _resubmit(self, ticket: Ticket, submit: msg.Submit, now: int) -> None:
        """The origin lost an attempt and asks again: a recovery."""
        self._release(ticket, cancel=True)
        self._know(ticket, submit.request, now)
        ticket.submission = submit.submission
        reached = ticket.request.capability
        ticket.request = submit.request
        self._climb(ticket, reached)
        ticket.received_ns = now
        ticket.last_attempt = max(ticket.last_attempt, submit.last_attempt)
        # By its number, not one more: after a restart this one may be in the journal already, while
        # the ticket is of an attempt before it, which its replica still holds or hands back.
        ticket.recoveries = max(ticket.recoveries, submit.submission - 1)
        ticket.end_code = ticket.served_by = None
        self._persist_counters(ticket)
        self._emit_reentry(ticket, "lost", ticket.recoveries, "")
        if ticket.recoveries > self._rules.recovery_limit:
            self._reject(
                ticket, self._loss_code(ticket), "its replica was lost once too often", now
            )
        else:
            self._place(ticket, now)

    def _loss_code(self, ticket: Ticket) -> Code:
        return Code.POISONED if ticket.deaths > 1 else Code.REPLICA_LOST

    def _on_cancel(self, cancel: msg.Cancel, now: int) -> None:
        if cancel.id in self._settled:
            return
        ticket = self._tickets.get(cancel.id)
        if ticket is None:
            self._cancelled[cancel.id] = now
            if len(self._cancelled) > MAX_TOMBSTONES:
                del self._cancelled[next(iter(self._cancelled))]
            return
        self._release(ticket, cancel=True, code=cancel.code)
        ticket.end_code = (cancel.code, "", None)
        ticket.cancelled_by = cancel.code
        ticket.go(TicketState.ENDED)

    def _on_settled(self, settled: msg.Settled, now: int) -> None:  # noqa: ARG002
        for request_id in settled.ids:
            self._settled.add(request_id)
            self._drop_settled(request_id)
        self._settled.raise_watermark(settled.origin, settled.incarnation, settled.settled_below)
        if self._gone_origins:
            self._gone_origins.pop((settled.origin, settled.incarnation), None)
        if settled.all_open:
            for request_id in [name for name in self._tickets if name in self._settled]:
                # Of an earlier life nobody has settled it: it may still run somewhere.
                origin, incarnation, _ = split_request_id(request_id)
                earlier = origin == settled.origin and incarnation < settled.incarnation
                self._drop_settled(request_id, lost=earlier)

    def _drop_settled(self, request_id: str, *, lost: bool = False) -> None:
        """Forget it; `lost`: its origin died, and nobody else tells its replica."""
        if self._cancelled:
            self._cancelled.pop(request_id, None)
        ticket = self._tickets.pop(request_id, None)
        if ticket is not None:
            self._release(ticket, cancel=lost, code=Code.ORIGIN_LOST)
        if self._counters and self._counters.pop(request_id, None) is not None:
            self._persist(JournalRecord(kind="settled", id=request_id))

    def _on_operate(self, operate: msg.Operate, now: int) -> None:  # noqa: ARG002
        if operate.replica in self._registry.replicas:
            control = msg.Control(action=operate.action, factor=operate.factor)
            self._out.append(Send(Inbox.REPLICA, operate.replica, control))

    def _hear_origin(self, request_id: str) -> None:
        if self._gone_origins:
            origin, incarnation, _ = split_request_id(request_id)
            self._gone_origins.pop((origin, incarnation), None)
