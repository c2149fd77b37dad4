"""`Scheduler.handle(now, message) -> effects`: the rules of `docs/protocol.md`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import msgspec

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.capability import Ladder
from anyserve.core.effects import Effect, Emit, Inbox, JournalRecord, Persist, Send, SetTimer
from anyserve.core.inputs import BusDown, BusUp, Pressure, Wake
from anyserve.core.lifecycle import TicketState
from anyserve.core.messages import Code, ReplicaState
from anyserve.core.order import MS, deadline_ns, queue_order
from anyserve.core.policies import RoutingPolicy
from anyserve.core.randomness import Rng
from anyserve.core.scheduler.queues import Queues
from anyserve.core.scheduler.rates import CompletionRate
from anyserve.core.scheduler.registry import Registry
from anyserve.core.scheduler.routing import Router
from anyserve.core.scheduler.state import ReplicaView, Ticket
from anyserve.core.seen import SettledIds, split_request_id
from anyserve.core.spec import ClusterSpec

MAX_TOMBSTONES = 100_000
SWEEP_EVERY_NS = 10_000 * MS

SchedulerInput = msg.SchedulerInbound | Wake | BusUp | BusDown | Pressure
H = TypeVar("H", bound=msg.HandBack)


class Scheduler:
    """One life of the scheduler. Construct it, `replay` its journal, `start`, then `handle`.

    Args:
        spec: the cluster.
        policy: decides among candidates.
        rng: the random source of policies.
        incarnation: of this process.
        boot: names the host life whose monotonic clock `now` is.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        policy: RoutingPolicy,
        rng: Rng,
        *,
        incarnation: int = 1,
        boot: str = "",
    ) -> None:
        self._spec = spec
        self._rules = spec.scheduler
        self._incarnation = incarnation
        self._boot = boot
        self._ladder = Ladder(spec.ladder.upgrades)
        self._capabilities = {item.name: item for item in spec.capabilities}
        self._registry = Registry(list(self._capabilities))
        reserves = {item.name: item.reserve for item in spec.capabilities}
        self._router = Router(self._registry, policy, self._rules.policy, reserves, rng)
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
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            msg.Submit: self._on_submit,
            msg.Cancel: self._on_cancel,
            msg.Settled: self._on_settled,
            msg.Operate: self._on_operate,
            msg.Delegate: self._on_delegate,
            msg.Refuse: self._on_refuse,
            msg.Return: self._on_return,
            msg.Credit: self._on_credit,
            msg.Holding: self._on_holding,
            msg.Admitted: self._on_admitted,
            msg.Started: self._on_started,
            msg.Ended: self._on_ended,
            msg.Registration: self._on_registration,
            msg.Gone: self._on_gone,
            Wake: self._on_wake,
            BusUp: self._on_bus_up,
            BusDown: self._on_bus_down,
            Pressure: self._on_pressure,
        }

    # --- life ------------------------------------------------------------------------------------

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
        """Begin this life: an epoch above the journal's and above `seen_epoch` (the retained one)."""
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
        self._handlers[type(message)](message, now)
        return self._take()

    # --- what can be seen from outside -----------------------------------------------------------

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

    # --- from origins ----------------------------------------------------------------------------

    def _on_submit(self, submit: msg.Submit, now: int) -> None:
        request = submit.request
        if request.id in self._settled:
            return
        self._hear_origin(request.id)
        if request.id in self._cancelled:
            self._cancelled.pop(request.id)
            self._reject_unknown(request, submit.submission, Code.CLIENT_CANCELLED, "", now)
            return
        ticket = self._tickets.get(request.id)
        if ticket is None:
            self._take_new(submit, now)
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

    def _new_ticket(self, request: msg.Request, submission: int, now: int) -> Ticket:
        ticket = Ticket(request, submission, now)
        self._restore(ticket)
        ticket.order = queue_order(request, self._rules, self._boot, now)
        self._tickets[ticket.id] = ticket
        return ticket

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
            ticket.request = msgspec.structs.replace(request, capability=capability)

    def _know(self, ticket: Ticket, request: msg.Request, now: int) -> None:
        """The request of a ticket of which so far only the attempt was heard."""
        if not ticket.request.asked:
            ticket.request = request
            self._restore(ticket)
            ticket.order = queue_order(request, self._rules, self._boot, now)

    def _deadline_ns(self, ticket: Ticket) -> int | None:
        return deadline_ns(ticket.request, self._boot, ticket.received_ns)

    def _refuse_new(self, ticket: Ticket) -> tuple[Code, str] | None:
        capability = ticket.request.capability
        if self._pressure:
            return Code.OVERLOADED, "the scheduler's incoming backlog is above its limit"
        limit = self._queue_limit(capability)
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
        ticket.recoveries = max(ticket.recoveries + 1, submit.submission - 1)
        ticket.end_code = None
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

    def _answer_again(self, ticket: Ticket) -> None:
        if ticket.state is TicketState.QUEUED:
            self._accept(ticket)
        elif ticket.state is TicketState.ENDED and ticket.end_code is not None:
            code, detail, retry_after_ms = ticket.end_code
            self._send_rejected(
                ticket, cast("Code", code), cast("str", detail), cast("int | None", retry_after_ms)
            )

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
        ticket.go(TicketState.ENDED)

    def _on_settled(self, settled: msg.Settled, now: int) -> None:  # noqa: ARG002
        for request_id in settled.ids:
            self._settled.add(request_id)
            self._drop_settled(request_id)
        self._settled.raise_watermark(settled.origin, settled.incarnation, settled.settled_below)
        self._gone_origins.pop((settled.origin, settled.incarnation), None)
        if settled.all_open:
            for request_id in [name for name in self._tickets if name in self._settled]:
                self._drop_settled(request_id)

    def _drop_settled(self, request_id: str) -> None:
        self._cancelled.pop(request_id, None)
        ticket = self._tickets.pop(request_id, None)
        if ticket is not None:
            self._release(ticket, cancel=False)
        if self._counters.pop(request_id, None) is not None:
            self._persist(JournalRecord(kind="settled", id=request_id))

    def _on_operate(self, operate: msg.Operate, now: int) -> None:  # noqa: ARG002
        if operate.replica in self._registry.replicas:
            control = msg.Control(action=operate.action, factor=operate.factor)
            self._out.append(Send(Inbox.REPLICA, operate.replica, control))

    def _hear_origin(self, request_id: str) -> None:
        if self._gone_origins:
            origin, incarnation, _ = split_request_id(request_id)
            self._gone_origins.pop((origin, incarnation), None)

    # --- the four ways back ----------------------------------------------------------------------

    def _hand_back(self, back: H, now: int) -> Ticket | None:
        """The ticket of a hand-back, if it is the current attempt's first; None: stale or said twice."""
        if back.request.id in self._settled:
            return None
        if not self._speaks_for(back.replica, back.incarnation, now):
            return None
        ticket = self._tickets.get(back.id)
        if ticket is None:
            if back.id in self._cancelled or back.attempt != msg.ENTRY_ATTEMPT:
                return self._adopt(back, now)
            return self._new_ticket(back.request, back.submission, now)
        if back.submission != ticket.submission or back.attempt < ticket.attempt:
            return None
        if ticket.attempt == 0 and back.attempt <= ticket.last_attempt:
            return None
        if ticket.state in (TicketState.QUEUED, TicketState.LOST, TicketState.ENDED):
            return None
        if ticket.attempt != back.attempt or ticket.replica not in (None, back.replica):
            return None
        self._release(ticket, cancel=False)
        return ticket

    def _adopt(self, back: H, now: int) -> Ticket | None:
        """A hand-back of an attempt made by an earlier scheduler life."""
        if back.id in self._cancelled:
            self._cancelled.pop(back.id)
            self._reject_unknown(back.request, back.submission, Code.CLIENT_CANCELLED, "", now)
            return None
        if back.attempt // msg.ATTEMPTS_PER_EPOCH >= self._epoch:
            return None
        return self._new_ticket(back.request, back.submission, now)

    def _speaks_for(self, replica: str, incarnation: int, now: int) -> bool:
        """Whether this is the replica's present life; hearing from it proves it alive."""
        view = self._registry.replicas.get(replica)
        if view is None or view.incarnation != incarnation:
            # Registrations come on another topic: what a new life says may overtake it.
            return view is None or incarnation > view.incarnation
        view.heard_ns = now
        return True

    def _take_back(self, ticket: Ticket, back: msg.HandBack, now: int) -> None:
        self._know(ticket, back.request, now)
        ticket.last_attempt = max(ticket.last_attempt, back.attempt)
        ticket.received_ns = now

    def _on_delegate(self, back: msg.Delegate, now: int) -> None:
        ticket = self._hand_back(back, now)
        if ticket is None:
            return
        counted = self._is_counted(back)
        self._take_back(ticket, back, now)
        ticket.excluded.add(back.replica)
        ticket.overload = back.reason is msg.DelegateReason.OVERLOAD
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
        self._emit_delegated(ticket, back, rung)
        ticket.request = msgspec.structs.replace(ticket.request, capability=rung)
        self._persist_counters(ticket)
        self._queue(ticket, now)
        if ticket.state is not TicketState.QUEUED:
            self._accept(ticket)

    def _is_counted(self, back: msg.HandBack) -> bool:
        """Whether an earlier life of the scheduler counted this very hand-back."""
        record = self._counters.get(back.id)
        return record is not None and record.last_attempt >= back.attempt

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

    def _on_refuse(self, back: msg.Refuse, now: int) -> None:
        ticket = self._hand_back(back, now)
        if ticket is None:
            return
        self._take_back(ticket, back, now)
        ticket.refusals += 1
        ticket.refused_by.add(back.replica)
        self._persist_counters(ticket)
        self._emit_reentry(ticket, "refuse", ticket.refusals, back.reason.value, back)
        if ticket.refusals > self._rules.refuse_limit:
            self._reject(ticket, Code.REFUSE_EXHAUSTED, f"last by {back.replica}", now)
            return
        if not self._registry.has_server(ticket, ticket.request.capability):
            ticket.refused_by.clear()
        self._place(ticket, now)

    def _on_return(self, back: msg.Return, now: int) -> None:
        ticket = self._hand_back(back, now)
        if ticket is None:
            return
        self._take_back(ticket, back, now)
        ticket.returns += 1
        self._persist_counters(ticket)
        self._emit_reentry(ticket, "return", ticket.returns, "draining", back)
        if ticket.returns > self._rules.return_limit:
            self._reject(ticket, Code.RETURN_EXHAUSTED, f"last by {back.replica}", now)
        else:
            self._place(ticket, now)

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

    # --- placing and binding ---------------------------------------------------------------------

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
        return now - self._started_ns < patience or any(
            self._registry.may_return(ticket.request, rung, now, patience)
            for rung in self._ladder.rungs(ticket.request.capability)
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
        self._accept(ticket)

    def _note_servable(self, ticket: Ticket, now: int) -> None:
        if self._registry.has_server(ticket, ticket.request.capability):
            ticket.unservable_since_ns = None
            self._unservable.pop(ticket.id, None)
        elif ticket.unservable_since_ns is None:
            ticket.unservable_since_ns = now
            self._unservable[ticket.id] = ticket

    def _bind(self, ticket: Ticket, now: int) -> bool:
        events: list[ev.AnyEvent] = []
        deadline = self._deadline_ns(ticket)
        if deadline is not None and now >= deadline:
            return False
        view = self._router.route(ticket, ticket.last_attempt, events)
        if view is None:
            return False
        self._queues.remove(ticket)
        self._unservable.pop(ticket.id, None)
        ticket.unservable_since_ns = None
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
        for event in events:
            if isinstance(event, ev.RequestRouted):
                event = msgspec.structs.replace(event, attempt=attempt)  # noqa: PLW2901
            self._emit(event)
        self._out.append(Send(Inbox.REPLICA, view.id, ticket.delivery))
        return True

    def _next_attempt(self, ticket: Ticket) -> int:
        ticket.attempt = max(ticket.last_attempt, self._epoch * msg.ATTEMPTS_PER_EPOCH) + 1
        ticket.last_attempt = ticket.attempt
        return ticket.attempt

    def _aged(self, ticket: Ticket, now: int) -> msg.Request:
        """The request with what is left of its deadline, for a host with another clock."""
        request, at_ns = ticket.request, self._deadline_ns(ticket)
        if request.deadline is None or at_ns is None:
            return request
        left_ms = max(0, (at_ns - now) // MS)
        deadline = msgspec.structs.replace(request.deadline, left_ms=left_ms)
        return msgspec.structs.replace(request, deadline=deadline)

    def _fill(self, view: ReplicaView, now: int) -> None:
        """Give a replica's credit to the best waiting requests over all queues it can serve."""
        while view.takes_work and view.credit > 0:
            best: Ticket | None = None
            for capability in {offer.capability for offer in view.offers}:
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

    def _release(self, ticket: Ticket, *, cancel: bool, code: Code = Code.CLIENT_CANCELLED) -> None:
        """Take a ticket out of queue or replica; `cancel` tells the replica to stop."""
        self._queues.remove(ticket)
        self._unservable.pop(ticket.id, None)
        ticket.unservable_since_ns = None
        view = self._registry.replicas.get(ticket.replica or "")
        if view is not None and view.bound.pop(ticket.id, None) is not None and cancel:
            delivery = ticket.delivery
            ordinal = delivery.ordinal if isinstance(delivery, msg.Assign) else None
            self._cancel_attempt(view, ticket.id, ticket.attempt, ordinal, code)
        ticket.replica = None
        ticket.delivery = None

    # --- from replicas ---------------------------------------------------------------------------

    def _on_registration(self, registration: msg.Registration, now: int) -> None:
        view = self._registry.replicas.get(registration.replica)
        if view is not None and not view.is_newer(registration):
            return
        if view is not None and view.incarnation != registration.incarnation:
            self._lose_bound(view, Code.REPLICA_LOST)
        before = None if view is None else (view.state, view.offers)
        view = self._registry.register(registration, now)
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
        self._say_again(view, now)
        self._fill(view, now)

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
                self._cancel_attempt(view, unacked.id, unacked.attempt, ordinal)

    def _cancel_attempt(
        self,
        view: ReplicaView,
        request_id: str,
        attempt: int,
        ordinal: int | None,
        code: Code = Code.CLIENT_CANCELLED,
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

    def _reconcile(self, view: ReplicaView, held: msg.Held) -> None:
        """A replica says what it holds: keep what is ours or new to us, stop the rest."""
        ticket = self._tickets.get(held.id)
        if held.id in self._settled or held.id in self._cancelled:
            keep = False
        elif ticket is None:
            # Only its origin knows the request itself; should this attempt die, it says so again.
            keep = True
        else:
            keep = ticket.attempt == held.attempt or ticket.state is TicketState.QUEUED
            keep = keep and ticket.submission == held.submission
        if not keep:
            self._cancel_attempt(view, held.id, held.attempt, None)
        elif ticket is not None and ticket.state is TicketState.QUEUED:
            self._release(ticket, cancel=False)
            self._hold(ticket, view, held.attempt, entered=held.entered)
        elif ticket is None:
            self._track(view, held.id, held.attempt, held.submission, entered=held.entered)

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
            ticket.delivery = None
            ticket.request = msgspec.structs.replace(ticket.request, body=msgspec.Raw(b"{}"))

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
        ticket.replica = None
        ticket.delivery = None

    def _current(self, request_id: str, attempt: int, replica: str) -> Ticket | None:
        ticket = self._tickets.get(request_id)
        if ticket is None or ticket.attempt != attempt or ticket.replica != replica:
            return None
        return ticket

    def _count_death(self, ticket: Ticket, *, started: bool) -> None:
        if started:
            ticket.deaths += 1
            self._persist_counters(ticket)

    def _on_gone(self, gone: msg.Gone, now: int) -> None:
        view = self._registry.replicas.get(gone.source)
        if view is not None and (gone.incarnation, gone.connection) == (
            view.incarnation,
            view.connection,
        ):
            if view.state is not ReplicaState.STOPPED:
                self._lose(view, now, "last will")
            return
        self._gone_origins[gone.source, gone.incarnation] = (gone.connection, now)

    def _lose(self, view: ReplicaView, now: int, why: str) -> None:
        self._registry.mark_lost(view, now)
        self._emit(
            ev.ReplicaChanged(
                replica=view.id,
                state=ReplicaState.LOST.value,
                incarnation=view.incarnation,
                detail=why,
            )
        )
        self._lose_bound(view, Code.REPLICA_LOST)
        self._review(now)

    def _lose_bound(self, view: ReplicaView, code: Code) -> None:
        for ticket in list(view.bound.values()):
            started = ticket.state is not TicketState.ASSIGNED
            self._count_death(ticket, started=started)
            lost = msg.AttemptLost(
                id=ticket.id,
                attempt=ticket.attempt,
                submission=ticket.submission,
                code=code,
                started=started,
            )
            self._out.append(Send(Inbox.ORIGIN, ticket.request.origin, lost))
            ticket.go(TicketState.LOST)
            ticket.replica = None
            ticket.delivery = None
        view.bound.clear()

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
                ticket.refused_by.clear()
                if self._bind(ticket, now):
                    continue
            self._note_servable(ticket, now)

    # --- time ------------------------------------------------------------------------------------

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
                self._lose(view, now, f"no heartbeat for {self._rules.lost_after_ms} ms")

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

    # --- saying things ---------------------------------------------------------------------------

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

    def _persist(self, record: JournalRecord) -> None:
        # Records lead the list: a driver that carries it out in order cannot send first.
        position = 0
        while position < len(self._out) and isinstance(self._out[position], Persist):
            position += 1
        self._out.insert(position, Persist(record))

    def _emit(self, event: ev.AnyEvent) -> None:
        self._out.append(Emit(event))

    def _take(self) -> list[Effect]:
        out, self._out = self._out, []
        return out
