"""What all parts of the scheduler share: its memory, and how it says things."""

from __future__ import annotations

from typing import cast

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.capability import Ladder
from anyserve.core.effects import Effect, Inbox, JournalRecord, Persist, Send
from anyserve.core.lifecycle import TicketState
from anyserve.core.machine import Explains, Machine, explain_all
from anyserve.core.messages import Code
from anyserve.core.order import Ordering, deadline_ns
from anyserve.core.policies import RoutingPolicy
from anyserve.core.randomness import Rng
from anyserve.core.scheduler.queues import Queues
from anyserve.core.scheduler.rates import CompletionRate
from anyserve.core.scheduler.registry import Registry
from anyserve.core.scheduler.routing import Router
from anyserve.core.scheduler.state import ReplicaView, Ticket
from anyserve.core.seen import SettledIds
from anyserve.core.spec import ClusterSpec


class SchedulerBase(Machine):
    """The scheduler's memory. Its parts, one module each, add the rules, each to the one before:
    placing, submissions, handbacks, replicas, timekeeping, and `Scheduler` at the end."""

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
        self._spec = spec
        self._rules = spec.scheduler
        self._incarnation = incarnation
        self._boot = boot
        self._ordering = Ordering(self._rules, boot)
        self._ladder = Ladder(spec.ladder.upgrades)
        self._capabilities = {item.name: item for item in spec.capabilities}
        self._explains = explains
        self._registry = Registry(list(self._capabilities))
        reserves = {item.name: item.reserve for item in spec.capabilities}
        self._router = Router(
            self._registry, policy, self._rules.policy, reserves, rng, explains=explains
        )
        self._queues = Queues()
        self._rate = CompletionRate()
        self._tickets: dict[str, Ticket] = {}
        self._settled = SettledIds()
        self._cancelled: dict[str, int] = {}
        self._counters: dict[str, JournalRecord] = {}
        self._unservable: dict[str, Ticket] = {}
        self._gone_origins: dict[tuple[str, int], tuple[int, int]] = {}
        self._epoch = 0
        self._journal_base: int | None = None
        self._replayed = 0
        self._started_ns = 0
        self._frozen_until_ns: int | None = None
        self._swept_ns = 0
        self._pressure = False
        self._turns = 0
        self._out: list[Effect] = []

    def _deadline_ns(self, ticket: Ticket) -> int | None:
        return deadline_ns(ticket.request, self._boot, ticket.received_ns)

    def _restore(self, ticket: Ticket) -> None:
        """Take over what earlier lives counted of this request."""
        counters = self._counters.get(ticket.id)
        base = self._journal_base or 1
        if counters is not None:
            ticket.restore(counters)
            self._climb(ticket, counters.capability)
        elif ticket.request.asked and base > 1 and ticket.request.first_epoch < base:
            # Its past is in a journal that is gone: whatever it used, it may not delegate again.
            ticket.delegations = self._spec.delegation.limit

    def _climb(self, ticket: Ticket, capability: str) -> None:
        """Take the ticket to a rung that it is known to have reached; never down."""
        request = ticket.request
        if request.asked and self._ladder.is_at_or_above(capability, request.capability):
            ticket.request = msg.changed(request, capability=capability)

    def _know(self, ticket: Ticket, request: msg.Request, now: int) -> None:
        """The request of a ticket of which so far only the attempt was heard."""
        if not ticket.request.asked:
            ticket.request = request
            self._restore(ticket)
            ticket.order = self._ordering.place(request, now)

    def _new_ticket(self, request: msg.Request, submission: int, now: int) -> Ticket:
        ticket = Ticket(request, submission, now)
        self._restore(ticket)
        ticket.order = self._ordering.place(request, now)
        self._tickets[ticket.id] = ticket
        return ticket

    def _speaks_for(self, replica: str, incarnation: int, now: int) -> bool:
        """Whether this is the replica's present life; hearing from it proves it alive."""
        view = self._registry.replicas.get(replica)
        if view is None or view.incarnation != incarnation:
            # Registrations come on another topic: what a new life says may overtake it.
            return view is None or incarnation > view.incarnation
        view.heard_ns = now
        return True

    def _release(self, ticket: Ticket, *, cancel: bool, code: Code = Code.REPLICA_LOST) -> None:
        """Take a ticket out of queue or replica; `cancel` tells the replica to stop."""
        self._queues.remove(ticket)
        self._mark_servable(ticket)
        view = self._registry.replicas.get(ticket.replica or "")
        if view is not None and view.bound.pop(ticket.id, None) is not None and cancel:
            delivery = ticket.delivery
            ordinal = delivery.ordinal if isinstance(delivery, msg.Assign) else None
            self._cancel_attempt(view, ticket.id, ticket.attempt, ordinal, code)
        ticket.replica = None
        ticket.delivery = None

    def _mark_servable(self, ticket: Ticket) -> None:
        """Somebody can serve it, or nobody has to any more."""
        if ticket.unservable_since_ns is not None:
            ticket.unservable_since_ns = None
            self._unservable.pop(ticket.id, None)

    def _cancel_attempt(
        self,
        view: ReplicaView,
        request_id: str,
        attempt: int,
        ordinal: int | None,
        code: Code = Code.REPLICA_LOST,
    ) -> None:
        stop = msg.CancelAttempt(
            id=request_id,
            attempt=attempt,
            incarnation=view.incarnation,
            epoch=self._epoch,
            ordinal=ordinal,
            code=code,
        )
        self._out.append(Send(Inbox.REPLICA, view.id, stop))

    def _why_stopped(self, request_id: str) -> Code:
        """Why an attempt of this request is not wanted, for its replica and its origin to read."""
        ticket = self._tickets.get(request_id)
        if ticket is not None and ticket.cancelled_by is not None:
            return ticket.cancelled_by
        return Code.CLIENT_CANCELLED if request_id in self._cancelled else Code.REPLICA_LOST

    def _announce(self) -> None:
        state = msg.SchedulerState(
            epoch=self._epoch,
            incarnation=self._incarnation,
            ladder=self._spec.ladder.upgrades,
            capabilities=list(self._capabilities),
            delegation_limit=self._spec.delegation.limit,
            boot=self._boot,
        )
        self._out.append(Send(Inbox.SCHEDULER_STATE, "", state))

    def _accept(self, ticket: Ticket) -> None:
        accepted = msg.Accepted(
            id=ticket.id,
            capability=ticket.request.capability,
            epoch=self._epoch,
            submission=ticket.submission,
        )
        self._out.append(Send(Inbox.ORIGIN, ticket.request.origin, accepted))

    def _answer_again(self, ticket: Ticket) -> None:
        """The origin asks what became of its request: whatever told it before may be lost."""
        if ticket.state is TicketState.QUEUED:
            self._accept(ticket)
        elif ticket.state is TicketState.LOST:
            self._say_lost(ticket, Code.REPLICA_LOST, started=True)
        elif ticket.state is TicketState.ENDED and ticket.end_code is not None:
            code, detail, retry_after_ms = ticket.end_code
            self._send_rejected(
                ticket, cast("Code", code), cast("str", detail), cast("int | None", retry_after_ms)
            )
        elif (place := self._known_place(ticket)) is not None:
            replica, incarnation = place
            held = [(ticket.id, ticket.attempt)]
            alive = msg.KeepAlive(replica=replica, incarnation=incarnation, held=held)
            self._out.append(Send(Inbox.ORIGIN, ticket.request.origin, alive))

    def _known_place(self, ticket: Ticket) -> tuple[str, int] | None:
        """Replica and life where the attempt surely arrived: its origin can ask there."""
        if ticket.state is TicketState.ENDED:
            return ticket.served_by
        view = self._registry.replicas.get(ticket.replica or "")
        if view is None:
            return None
        delivery = ticket.delivery
        if isinstance(delivery, msg.Entry):
            return None
        if delivery is not None and delivery.ordinal in view.unacked:
            return None
        return view.id, view.incarnation

    def _say_lost(self, ticket: Ticket, code: Code, *, started: bool) -> None:
        lost = msg.AttemptLost(
            id=ticket.id,
            attempt=ticket.attempt,
            submission=ticket.submission,
            code=code,
            started=started,
            capability=ticket.request.capability,
        )
        self._out.append(Send(Inbox.ORIGIN, ticket.request.origin, lost))

    def _reject(self, ticket: Ticket, code: Code, detail: str, now: int) -> None:
        self._release(ticket, cancel=False)
        capability = ticket.request.capability
        contended = code in (Code.QUEUE_FULL, Code.OVERLOADED, Code.NO_REPLICA)
        depth = self._queues.depth(capability)
        retry_after_ms = self._rate.wait_ms(capability, depth, now) if contended else None
        ticket.go(TicketState.ENDED)
        ticket.end_code = (code, detail, retry_after_ms)
        self._emit(
            ev.RequestRejected(
                id=ticket.id,
                code=code.value,
                detail=detail,
                retry_after_ms=retry_after_ms,
                received_ns=ticket.received_ns,
            )
        )
        self._send_rejected(ticket, code, detail, retry_after_ms)

    def _send_rejected(
        self, ticket: Ticket, code: Code, detail: str, retry_after_ms: int | None
    ) -> None:
        rejected = msg.Rejected(
            id=ticket.id,
            submission=ticket.submission,
            code=code,
            detail=detail,
            retry_after_ms=retry_after_ms,
        )
        self._out.append(Send(Inbox.ORIGIN, ticket.request.origin, rejected))

    def _reject_unknown(
        self, request: msg.Request, submission: int, code: Code, detail: str, now: int
    ) -> None:
        """Reject a request that gets no ticket: nothing of it needs to be remembered."""
        self._emit(
            ev.RequestRejected(id=request.id, code=code.value, detail=detail, received_ns=now)
        )
        rejected = msg.Rejected(id=request.id, submission=submission, code=code, detail=detail)
        self._out.append(Send(Inbox.ORIGIN, request.origin, rejected))

    def _persist_counters(self, ticket: Ticket) -> None:
        record = ticket.counters()
        self._counters[ticket.id] = record
        self._persist(record)

    def _count_death(self, ticket: Ticket, *, started: bool) -> None:
        if started:
            ticket.deaths += 1
            self._persist_counters(ticket)

    def _persist(self, record: JournalRecord) -> None:
        # Records lead the list: a driver that carries it out in order cannot send first.
        position = 0
        while position < len(self._out) and isinstance(self._out[position], Persist):
            position += 1
        self._out.insert(position, Persist(record))

    def _emit(self, event: ev.AnyEvent) -> None:
        self._out.append(event)

    def _emit_reentry(
        self, ticket: Ticket, kind: str, count: int, detail: str, back: msg.HandBack | None = None
    ) -> None:
        self._emit(
            ev.RequestReentered(
                id=ticket.id,
                attempt=back.attempt if back else ticket.last_attempt,
                replica=back.replica if back else "",
                kind=kind,
                count=count,
                detail=detail,
            )
        )

    def _take(self) -> list[Effect]:
        out, self._out = self._out, []
        return out
