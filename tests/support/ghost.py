"""What an observer of the whole cluster knows, counted apart from the machines, and the checks.

Everything here is folded from the messages that processes really got and the effects that they
really asked for. Where a check must know what a machine believes (which requests it queues, whom it
holds for lost), it reads that, and nothing else.
"""

from __future__ import annotations

import math

from known import Ear, Life, Past, Told, fits, token
from violations import MS, Stories, Violated

from anyserve.core import effects as fx
from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.messages import Code, ReplicaState
from anyserve.core.replica import Replica
from anyserve.core.scheduler import Scheduler
from anyserve.core.spec import ClusterSpec, ReplicaSpec

STOPS = (msg.Cancel, msg.Settled, msg.CancelAttempt)
SERVING = (ReplicaState.READY, ReplicaState.SATURATED)


def check_replica(name: str, machine: Replica, spec: ReplicaSpec) -> None:
    """What a replica counts is what it holds, within its bounds."""
    counts = machine.running, machine.held, machine.waiting
    slots = [slot.state.value for slot in machine._all_attempts()]
    real = tuple(slots.count(state) for state in ("running", "held", "waiting"))
    bounds = spec.concurrency, spec.prefetch, spec.entry_queue
    if any(n > bound for n, bound in zip(real, bounds, strict=True)) or counts != real:
        text = f"{name} runs, holds and queues {real}, by its own count {counts}"
        raise Violated(7, f"{text}, within {bounds}")


class Ghost:
    """Checks what each process did with what it got."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.spec = spec
        self.rules = spec.scheduler
        self.stories = Stories()
        self.pasts: dict[str, Past] = {}
        self.life = Life()
        self.told: dict[str, Told] = {}
        self.registered: dict[str, msg.Registration] = {}
        self.journalled: dict[str, int] = {}
        self.prefixes: dict[tuple[str, str, int, int], list[int]] = {}
        self._above = dict(spec.ladder.upgrades)
        self._limits = {item.name: item.queue_limit for item in spec.capabilities}
        self._reserves = {item.name: item.reserve for item in spec.capabilities}
        self._waited: set[str] = set()
        self._first_epoch = 0

    def reaches(self, lower: str, higher: str) -> bool:
        """Whether `higher` is `lower` or stands above it on the ladder."""
        rung: str | None = lower
        while rung is not None and rung != higher:
            rung = self._above.get(rung)
        return rung is not None

    # --- lives -----------------------------------------------------------------------------------

    def offered(self, request: msg.Request, epoch: int) -> None:
        """A client wants this of an origin that knows this epoch."""
        past = Past(request, request.asked, epoch)
        past.forgotten = epoch < self._first_epoch
        self.pasts[request.id] = past

    def scheduler_starts(self, *, with_journal: bool, epoch: int) -> None:
        """A new life, which knows what the journal says."""
        self.life = Life()
        if not with_journal:
            self._first_epoch = epoch
            self.journalled.clear()
            for past in self.pasts.values():
                past.forgotten = True

    def replica_starts(self, name: str) -> None:
        """A new life, which has been told nothing."""
        self.told[name] = Told()

    # --- the scheduler ---------------------------------------------------------------------------

    def scheduler_gets(self, scheduler: Scheduler, message: object) -> None:
        """Before it handles a message."""
        self.life.told.hear(message)
        if isinstance(message, msg.Registration):
            ear = self.life.ears.get(message.replica)
            if ear is None or message.incarnation > ear.registration.incarnation:
                self.life.ears[message.replica] = Ear(message)
            elif Ear(message).key > ear.key:
                ear.registration = message
        credit = message.credit if isinstance(message, msg.Ended) else message
        if isinstance(credit, msg.Credit) and credit.epoch == scheduler.epoch:
            self._credit(credit)
        self._waited = {t.id for t in scheduler.tickets.values() if t.state.value == "queued"}

    def _credit(self, credit: msg.Credit) -> None:
        ear = self.life.ears.get(credit.replica)
        if ear is None or credit.incarnation != ear.registration.incarnation:
            return
        if credit.sequence <= ear.sequence:
            return
        if ear.sequence < 0:
            ear.assigned = max(ear.assigned, credit.assigned_seen)
        ear.sequence = credit.sequence
        ear.granted = max(ear.granted, credit.granted_total)
        ear.taken = max(ear.taken, credit.taken_total)

    def scheduler_did(
        self, scheduler: Scheduler, now: int, message: object, effects: list[fx.Effect]
    ) -> None:
        """After it handled a message, before anything of it is carried out."""
        sent = [effect.message for effect in effects if isinstance(effect, fx.Send)]
        if isinstance(message, msg.HandBack):
            self._came_back(message)
        self._journal(effects)
        if isinstance(message, msg.HandBack):
            self._handed_back(message, sent)
        self._pardon(scheduler)
        for one in sent:
            if isinstance(one, msg.Assign | msg.Entry):
                self._check_binding(now, one, _receiver(effects, one))
            elif isinstance(one, msg.Accepted):
                self._check_rung(one.id, one.capability)
            elif isinstance(one, msg.Rejected):
                self.check_rejection(message, one)
        if isinstance(message, msg.Submit):
            self._check_queue(scheduler, message.request.id)
        self._check_views(scheduler)
        self._check_conservation(scheduler, now)

    def _journal(self, effects: list[fx.Effect]) -> None:
        sent = False
        for effect in effects:
            sent = sent or isinstance(effect, fx.Send)
            if not isinstance(effect, fx.Persist):
                continue
            record = effect.record
            if sent:
                text = f"was journalled ({record.kind}) after messages that rest on it had left"
                raise self.stories.violated(1, text, record.id or None)
            if record.kind == "counters":
                self.journalled[record.id] = record.delegations
                self._check_counters(record)

    def _check_counters(self, record: fx.JournalRecord) -> None:
        past = self.pasts[record.id]
        made = len(past.refusals), len(past.returns)
        if not past.forgotten and (record.refusals > made[0] or record.returns > made[1]):
            text = f"counts {record.refusals} refusals and {record.returns} returns"
            raise self.stories.violated(7, f"{text}, {made[0]} and {made[1]} were made", past.id)

    def _came_back(self, back: msg.HandBack) -> None:
        past = self.pasts[back.id]
        if isinstance(back, msg.Delegate):
            past.refused_entry.add(back.replica)
            past.asked.add(back.attempt)
        elif isinstance(back, msg.Refuse):
            past.refusals.add(back.attempt)
        else:
            past.returns.add(back.attempt)

    def _handed_back(self, back: msg.HandBack, sent: list[msg.AnyMessage]) -> None:
        past = self.pasts[back.id]
        carried_on = any(
            (isinstance(one, msg.Accepted) and one.id == back.id and back.id not in self._waited)
            or (isinstance(one, msg.Assign | msg.Entry) and one.request.id == back.id)
            for one in sent
        )
        past.is_back = past.is_back or carried_on
        rejected = any(isinstance(one, msg.Rejected) and one.id == back.id for one in sent)
        if isinstance(back, msg.Delegate) and (carried_on or rejected):
            self._given_up(back)
        if not carried_on:
            return
        if isinstance(back, msg.Delegate):
            self._delegated(past, back)
            return
        kind = type(back).__name__.lower()
        if kind == "refuse" and (kind, back.attempt) not in past.carried_on:
            self.life.refused[back.id].add(back.replica)
        past.carried_on.add((kind, back.attempt))
        times = sum(other == kind for other, _ in past.carried_on)
        refused = isinstance(back, msg.Refuse)
        limit = self.rules.refuse_limit if refused else self.rules.return_limit
        if times > limit and not past.forgotten:
            raise self.stories.violated(7, f"came back {times} times by {kind}", back.id)

    def _delegated(self, past: Past, back: msg.Delegate) -> None:
        limit = self.spec.delegation.limit
        past.delegations.add(back.attempt)
        if len(past.delegations) > limit:
            text = f"was delegated {len(past.delegations)} times, the limit is {limit}"
            raise self.stories.violated(1, text, back.id)
        if self.journalled.get(back.id, 0) < len(past.delegations):
            text = "goes on, and the journal does not know of its delegation"
            raise self.stories.violated(1, text, back.id)

    def _given_up(self, back: msg.Delegate) -> None:
        overload = back.reason is msg.DelegateReason.OVERLOAD
        self.life.overload[back.id] = overload
        ear = self.life.ears.get(back.replica)
        if overload or ear is None or fits(ear.registration.offers, back.request):
            self.life.excluded[back.id].add(back.replica)

    def _pardon(self, scheduler: Scheduler) -> None:
        """Who refused is asked again where there is nobody else."""
        for request_id, refused in list(self.life.refused.items()):
            ticket = scheduler.tickets.get(request_id)
            if ticket is None or not self._others(scheduler, ticket.request, refused):
                del self.life.refused[request_id]

    def _others(self, scheduler: Scheduler, request: msg.Request, refused: set[str]) -> list[str]:
        excluded = self.life.excluded.get(request.id, ())
        return [
            name
            for name, ear in self.life.ears.items()
            if scheduler.replicas[name].state in (*SERVING, ReplicaState.STARTING)
            and name not in refused
            and name not in excluded
            and fits(ear.registration.offers, request)
        ]

    def _check_binding(self, now: int, bound: msg.Assign | msg.Entry, replica: str) -> None:
        request, past = bound.request, self.pasts[bound.request.id]
        story = self.stories
        if self.life.told.is_over(request.id, bound.attempt):
            raise story.violated(2, f"goes to {replica} after the scheduler heard its end", past.id)
        if not past.forgotten and bound.delegations != len(past.delegations):
            text = f"goes to {replica} with {bound.delegations} delegations counted"
            raise story.violated(1, f"{text}, {len(past.delegations)} were made", past.id)
        self._check_rung(request.id, request.capability)
        past.bound[bound.attempt] = request.capability
        if past.attempts.setdefault(bound.attempt, replica) != replica:
            raise story.violated(7, f"has attempt {bound.attempt} at two replicas", request.id)
        if replica in self.life.excluded[request.id]:
            raise story.violated(3, f"goes back to {replica}, which gave it up", request.id)
        if isinstance(bound, msg.Assign) and replica in self.life.refused.get(request.id, ()):
            text = f"goes back to {replica}, which refused it, while another could serve"
            raise story.violated(3, text, request.id)
        if bound.submission > 1 + self.rules.recovery_limit:
            text = f"is recovered {bound.submission - 1} times"
            raise story.violated(7, f"{text}, the limit is {self.rules.recovery_limit}", request.id)
        if isinstance(bound, msg.Assign):
            self._check_assignment(now, bound, replica)

    def _check_assignment(self, now: int, assign: msg.Assign, replica: str) -> None:
        key, this = (
            (replica, assign.incarnation, assign.ordinal),
            (assign.request.id, assign.attempt),
        )
        before = self.life.ordinals.get(key)
        if before == this:
            return  # said again
        request, story = assign.request, self.stories
        if before is not None:
            raise story.violated(7, f"shares ordinal {assign.ordinal} with {before}", request.id)
        self.life.ordinals[key] = this
        ear = self.life.ears[replica]
        if ear.registration.state not in SERVING or not fits(ear.registration.offers, request):
            raise story.violated(
                3, f"is assigned against the registration of {replica}", request.id
            )
        if request.deadline is not None and now >= request.deadline.at_ns:
            raise story.violated(7, "is assigned after its deadline", request.id)
        kept = self._kept_back(request, ear)
        if ear.credit <= kept:
            text = f"is assigned to {replica} with {ear.credit} credits, {kept} of them reserved"
            raise story.violated(7, text, request.id)
        ear.assigned += 1

    def _kept_back(self, request: msg.Request, ear: Ear) -> int:
        if not self.life.overload.get(request.id):
            return 0
        slots = ear.registration.concurrency
        return min(math.ceil(self._reserves.get(request.capability, 0.0) * slots), slots - 1)

    def _check_rung(self, request_id: str, rung: str) -> None:
        past = self.pasts[request_id]
        if past.outcomes:
            return  # somebody has not heard so yet
        if not self.reaches(past.rung, rung):
            raise self.stories.violated(5, f"goes down from {past.rung} to {rung}", request_id)
        past.rung = rung

    def check_rejection(self, message: object, rejected: msg.Rejected) -> None:
        """A rejection names a bound: the bound must have been reached."""
        past, code = self.pasts[rejected.id], rejected.code
        was_full, past.was_full = past.was_full, past.was_full or code is Code.QUEUE_FULL
        if past.forgotten:
            return
        delegated = (1, len(past.delegations), self.spec.delegation.limit)
        if isinstance(message, msg.HandBack):  # one that is not carried on
            delegated = (1, len(past.asked), self.spec.delegation.limit + 1)
        used = {
            Code.DELEGATION_EXHAUSTED: delegated,
            Code.REFUSE_EXHAUSTED: (7, len(past.refusals), self.rules.refuse_limit + 1),
            Code.RETURN_EXHAUSTED: (7, len(past.returns), self.rules.return_limit + 1),
        }
        if code in used:
            invariant, n, limit = used[code]
            if n < limit:
                text = f"is rejected ({code.value}) at {n} of {limit}"
                raise self.stories.violated(invariant, text, past.id)
        made, limit = rejected.submission - 1, self.rules.recovery_limit
        if code in (Code.REPLICA_LOST, Code.POISONED) and made <= limit:
            text = f"is rejected ({code.value}) at {made} of {limit} recoveries"
            raise self.stories.violated(7, text, past.id)
        if code is Code.QUEUE_FULL and not was_full and _comes_back(past, message):
            raise self.stories.violated(7, "came back and is refused for fullness", past.id)

    def _check_queue(self, scheduler: Scheduler, request_id: str) -> None:
        ticket, past = scheduler.tickets.get(request_id), self.pasts[request_id]
        if ticket is None or ticket.state.value != "queued" or request_id in self._waited:
            return
        if past.is_back or ticket.submission > 1:
            return  # it may fill a queue beyond its limit
        rung = ticket.request.capability
        depth = sum(
            other.state.value == "queued" and other.request.capability == rung
            for other in scheduler.tickets.values()
        )
        if depth > self._limits.get(rung, math.inf):
            text = f"is queue place {depth} of {self._limits[rung]} for {rung}"
            raise self.stories.violated(7, text, request_id)

    def _check_views(self, scheduler: Scheduler) -> None:
        for view in scheduler.replicas.values():
            ear = self.life.ears[view.id]
            if (view.incarnation, view.connection, view.revision) != ear.key:
                text = f"the scheduler goes by registration {view.revision} of life"
                text = f"{text} {view.incarnation} of {view.id}, the newest is {ear.key}"
                raise self.stories.violated(3, text)
            if view.credit > ear.credit:
                text = f"the scheduler counts on {view.credit} credits of {view.id}"
                raise self.stories.violated(7, f"{text}, which left it {ear.credit}")

    def _check_conservation(self, scheduler: Scheduler, now: int) -> None:
        for ticket in scheduler.tickets.values():
            request = ticket.request
            if ticket.state.value != "queued" or (
                request.deadline is not None and request.deadline.at_ns <= now
            ):
                continue
            for name, ear in self.life.ears.items():
                if (
                    scheduler.replicas[name].state in SERVING
                    and ear.registration.state in SERVING
                    and name not in ticket.excluded
                    and name not in ticket.refused_by
                    and fits(ear.registration.offers, request)
                    and ear.credit > self._kept_back(request, ear)
                ):
                    text = f"waits at the scheduler, while {name} has {ear.credit} credits"
                    raise self.stories.violated(8, text, ticket.id)

    # --- replicas --------------------------------------------------------------------------------

    def replica_did(
        self, name: str, incarnation: int, now: int, message: object, effects: list[fx.Effect]
    ) -> None:
        """After a replica handled a message, before anything of it is carried out."""
        for effect in effects:
            if isinstance(effect, fx.Send):
                self._check_way(name, effect)
                if isinstance(effect.message, msg.Registration):
                    self.registered[name] = effect.message
                elif isinstance(effect.message, msg.Rejected):
                    self.check_rejection(message, effect.message)
            elif isinstance(effect, fx.StartWork):
                self._check_start(name, incarnation, now, message, effect)
        self._check_stops(name, incarnation, message, effects)
        self.told[name].hear(message)

    def _check_stops(
        self, name: str, incarnation: int, message: object, effects: list[fx.Effect]
    ) -> None:
        """What runs and is over is stopped at once."""
        working = self.told[name].working
        for effect in effects:
            if isinstance(effect, fx.StartWork):
                working.add((effect.request.id, effect.attempt))
            elif isinstance(effect, fx.CancelWork | ev.AttemptEnded):
                working.discard((effect.id, effect.attempt))
        if not isinstance(message, STOPS):
            return
        if isinstance(message, msg.CancelAttempt) and message.incarnation != incarnation:
            return
        told = Told()
        told.hear(message)
        for request_id, attempt in working:
            if told.is_over(request_id, attempt):
                text = f"runs on at {name}, which was told of its end"
                raise self.stories.violated(2, text, request_id)

    def _check_way(self, name: str, send: fx.Send) -> None:
        allowed = (fx.Inbox.SCHEDULER, fx.Inbox.ORIGIN, fx.Inbox.REPLICA_REGISTRATION)
        elsewhere = send.inbox is fx.Inbox.REPLICA_REGISTRATION and send.to != name
        if send.inbox not in allowed or elsewhere:
            what = type(send.message).__name__
            raise self.stories.violated(4, f"{name} sends {what} to {send.inbox.value} {send.to}")

    def _check_start(
        self, name: str, incarnation: int, now: int, message: object, work: fx.StartWork
    ) -> None:
        request, story, told = work.request, self.stories, self.told[name]
        registration = self.registered[name]
        if not fits(registration.offers, request):
            raise story.violated(3, f"starts at {name}, which does not offer that", request.id)
        if registration.state not in (*SERVING, ReplicaState.DRAINING):
            raise story.violated(3, f"starts at {name}, {registration.state.value}", request.id)
        if isinstance(message, msg.Assign):
            self._check_lives(name, incarnation, message)
        if told.is_over(request.id, work.attempt):
            raise story.violated(2, f"starts at {name}, which was told of its end", request.id)
        past = self.pasts[request.id]
        bound = past.bound.get(work.attempt, request.asked)
        if request.capability != bound:
            text = f"starts as {request.capability}, it was bound as {bound}"
            raise story.violated(5, text, request.id)
        due = request.deadline.at_ns if request.deadline is not None else math.inf
        if now >= due and not isinstance(message, msg.Assign | msg.Entry):
            raise story.violated(7, f"waited at {name} and starts after its deadline", past.id)
        if work.submission > 1 + self.rules.recovery_limit:
            raise story.violated(7, f"starts again, recovery {work.submission - 1}", request.id)
        key = (name, request.id, work.attempt, incarnation)
        if key in self.prefixes:
            raise story.violated(7, f"attempt {work.attempt} starts twice at {name}", request.id)
        self.prefixes[key] = list(request.resume_ids)

    def _check_lives(self, name: str, incarnation: int, assign: msg.Assign) -> None:
        request, known = assign.request, self.told[name].epoch
        if assign.incarnation != incarnation:
            text = f"is meant for life {assign.incarnation} of {name}, starts in {incarnation}"
            raise self.stories.violated(3, text, request.id)
        if assign.epoch < known:
            text = f"is assigned by epoch {assign.epoch}, {name} knows {known}"
            raise self.stories.violated(3, text, request.id)

    # --- the origin ------------------------------------------------------------------------------

    def origin_did(self, now: int, message: object, effects: list[fx.Effect]) -> None:
        """After the origin handled something."""
        if isinstance(message, msg.AttemptLost):
            self._check_recovery(message, effects)
        for effect in effects:
            if isinstance(effect, fx.Deliver):
                self._deliver(effect.id, effect.frame)
            elif isinstance(effect, fx.Finish):
                self._finish(now, effect.id, effect.outcome)

    def _check_recovery(self, lost: msg.AttemptLost, effects: list[fx.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, fx.Send) and isinstance(effect.message, msg.Submit):
                submit = effect.message
                if submit.submission != lost.submission + 1:
                    text = f"is submitted as number {submit.submission}, for one loss of number"
                    text = f"{text} {lost.submission}"
                    raise self.stories.violated(7, text, lost.id)

    def _deliver(self, request_id: str, frame: msg.Frame) -> None:
        past, story = self.pasts[request_id], self.stories
        if past.outcomes:
            raise story.violated(6, "gets tokens after its outcome", request_id)
        if frame.start != len(past.tokens):
            text = f"has {len(past.tokens)} tokens and gets those from {frame.start}"
            raise story.violated(6, text, request_id)
        prefix = self.prefixes.get((frame.replica, request_id, frame.attempt, frame.incarnation))
        if prefix is None:
            text = f"gets tokens of attempt {frame.attempt} at {frame.replica}, which never began"
            raise story.violated(6, text, request_id)
        own = [
            token(frame.replica, frame.incarnation, frame.attempt, index)
            for index in range(len(prefix), len(past.tokens))
        ]
        if past.tokens != prefix + own:
            text = f"gets tokens of attempt {frame.attempt} behind others that it did not resume"
            raise story.violated(6, text, request_id)
        past.tokens.extend(frame.tokens)

    def _finish(self, now: int, request_id: str, outcome: fx.Outcome) -> None:
        past, story, kind = self.pasts[request_id], self.stories, outcome.kind
        past.outcomes.append(outcome)
        if len(past.outcomes) > 1:
            kinds = " and ".join(one.kind.value for one in past.outcomes)
            raise story.violated(2, f"ends twice: {kinds}", request_id)
        request = past.request
        end = request.offered_ns + request.lifetime_ms * MS
        due = end if request.deadline is None else min(end, request.deadline.at_ns)
        if kind is fx.OutcomeKind.COMPLETED:
            if len(past.tokens) != request.max_tokens:
                text = f"is completed with {len(past.tokens)} of {request.max_tokens} tokens"
                raise story.violated(6, text, request_id)
            if now > due:
                raise story.violated(2, "is completed after it expired", request_id)
        elif kind is fx.OutcomeKind.EXPIRED and now < due:
            raise story.violated(2, "is expired before its time", request_id)
        elif kind is fx.OutcomeKind.CANCELLED and not past.cancelled:
            raise story.violated(2, "is cancelled, which nobody asked for", request_id)

    def check_expiry(self, now: int) -> None:
        """Nobody is open after its deadline."""
        for request_id, past in self.pasts.items():
            request = past.request
            end = request.offered_ns + request.lifetime_ms * MS
            due = end if request.deadline is None else min(end, request.deadline.at_ns)
            if now > due and not past.outcomes:
                raise self.stories.violated(2, "is open after it expired", request_id)


def _comes_back(past: Past, message: object) -> bool:
    """Whether what this message brings was here before: it is never refused for fullness."""
    if isinstance(message, msg.Submit):
        return past.is_back or message.submission > 1
    overload = isinstance(message, msg.Delegate) and message.reason is msg.DelegateReason.OVERLOAD
    return isinstance(message, msg.HandBack) and not overload


def _receiver(effects: list[fx.Effect], message: object) -> str:
    return next(e.to for e in effects if isinstance(e, fx.Send) and e.message is message)
