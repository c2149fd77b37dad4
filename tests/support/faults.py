"""Faults planted in the real machines, each small, each with the invariant that it must break.

A fault replaces one method while it is `planted`; everything else is the code that is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest.mock import patch

import msgspec

from anyserve.core import messages as msg
from anyserve.core.effects import (
    CancelWork,
    Finish,
    Inbox,
    JournalRecord,
    Outcome,
    OutcomeKind,
    Persist,
    Send,
)
from anyserve.core.inputs import Offered
from anyserve.core.lifecycle import TicketState
from anyserve.core.messages import Code, ReplicaState
from anyserve.core.origin import Origin
from anyserve.core.origin.pending import Pending, Stream
from anyserve.core.replica import Replica
from anyserve.core.replica.credits import CreditBook
from anyserve.core.replica.slot import Slot
from anyserve.core.replica.tombstones import Tombstones
from anyserve.core.scheduler import Scheduler
from anyserve.core.scheduler import handbacks as handbacks_module
from anyserve.core.scheduler import registry as registry_module
from anyserve.core.scheduler import routing as routing_module
from anyserve.core.scheduler.routing import Router
from anyserve.core.scheduler.state import ReplicaView, Ticket
from anyserve.core.seen import SettledIds

replace = msgspec.structs.replace
Mutation = Callable[..., Any]
"""Takes the method's original first, then the method's own arguments."""


@dataclass(frozen=True)
class Fault:
    """`name` says what is wrong; `invariant` is the number of what it breaks."""

    name: str
    invariant: int
    places: tuple[tuple[Any, str, Mutation], ...]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Within this context machines have the fault."""
        with ExitStack() as stack:
            for owner, attribute, mutation in self.places:
                stack.enter_context(
                    patch.object(owner, attribute, _bent(owner, attribute, mutation))
                )
            yield


FAULTS: list[Fault] = []


def _bent(owner: Any, attribute: str, mutation: Mutation) -> Any:
    original = getattr(owner, attribute)

    @wraps(original)  # bound ones are pickled by their name
    def method(*args: Any, **kwargs: Any) -> Any:
        return mutation(original, *args, **kwargs)

    return method


class _Forgetful(frozenset[str]):
    """A set to which nothing can be added."""

    def __or__(self, _other: object) -> Any:
        """Forget it at once."""
        return self


def fault(invariant: int, *places: tuple[Any, str]) -> Callable[[Mutation], Mutation]:
    """Add a fault, named after its function: the same mutation at each of the places."""

    def add(mutation: Mutation) -> Mutation:
        name = mutation.__name__.replace("_", " ")
        FAULTS.append(Fault(name, invariant, tuple((*place, mutation) for place in places)))
        return mutation

    return add


# --- 1 delegation bound --------------------------------------------------------------------------


@fault(1, (Scheduler, "_take_back"))
def hop_count_trusted_from_the_message(
    original: Any, self: Scheduler, ticket: Ticket, back: msg.HandBack, now: int
) -> None:
    original(self, ticket, back, now)
    ticket.delegations = int(back.request.capability != back.request.asked)


@fault(1, (Scheduler, "_emit_delegated"))
def delegation_not_counted(original: Any, self: Scheduler, ticket: Ticket, *args: Any) -> None:
    ticket.delegations -= 1
    original(self, ticket, *args)


@fault(1, (Scheduler, "_on_return"))
def drain_counted_as_delegation(original: Any, self: Scheduler, back: msg.Return, now: int) -> None:
    ticket = self.tickets.get(back.id)
    if ticket is not None:
        ticket.delegations += 1
    original(self, back, now)


@fault(1, (Scheduler, "_resubmit"))
def crash_counted_as_delegation(original: Any, self: Scheduler, ticket: Ticket, *args: Any) -> None:
    ticket.delegations += 1
    original(self, ticket, *args)


@fault(1, (Scheduler, "_on_delegate"))
def repeated_delegation_counted_after_a_restart(
    original: Any, self: Scheduler, back: msg.Delegate, now: int
) -> None:
    counters = self._counters.get(back.id)
    if counters is not None and back.id not in self.tickets:
        self._counters[back.id] = replace(counters, delegated_at=0)
    original(self, back, now)


@fault(1, (Scheduler, "_persist"))
def journal_written_after_the_messages(
    _original: Any, self: Scheduler, record: JournalRecord
) -> None:
    self._out.append(Persist(record))


@fault(1, (Scheduler, "_persist_counters"))
def counters_not_journalled(_original: Any, self: Scheduler, ticket: Ticket) -> None:
    self._counters[ticket.id] = ticket.counters()


@fault(1, (Scheduler, "replay"))
def journal_not_read(_original: Any, self: Scheduler, records: list[JournalRecord]) -> None:
    for record in records:
        if record.kind == "epoch":
            self._epoch = max(self._epoch, record.epoch)
            self._journal_base = self._journal_base or record.epoch


# --- 2 one outcome -------------------------------------------------------------------------------


@fault(2, (Origin, "_settle_again"))
def second_outcome_after_a_repeated_end(original: Any, self: Origin, frame: msg.Frame) -> None:
    original(self, frame)
    if frame.end is not None:
        self._out.append(Finish(frame.id, Outcome(kind=OutcomeKind.COMPLETED)))


@fault(2, (SettledIds, "__contains__"))
def settled_request_run_again(_original: Any, _self: SettledIds, _request: str) -> bool:
    return False


@fault(2, (Tombstones, "put"))
def tombstone_forgotten_by_a_replica(
    _original: Any, _self: Tombstones[Any], _key: Any, _now: int
) -> None:
    pass


@fault(2, (Replica, "_on_settled"))
def settled_request_kept_by_a_replica(
    _original: Any, self: Replica, settled: msg.Settled, _now: int
) -> None:
    for request_id in settled.ids:
        self._settled.add(request_id)


@fault(2, (Replica, "_stop"))
def engine_not_told_of_a_cancel(original: Any, self: Replica, slot: Slot, *args: Any) -> None:
    original(self, slot, *args)
    self._out = [effect for effect in self._out if not isinstance(effect, CancelWork)]


@fault(2, (Origin, "_settle"))
def scheduler_not_told_of_an_outcome(original: Any, self: Origin, *args: Any) -> None:
    original(self, *args)
    self._out = [
        effect
        for effect in self._out
        if not (isinstance(effect, Send) and isinstance(effect.message, msg.Settled))
        or effect.inbox is not Inbox.SCHEDULER
    ]


@fault(2, (Scheduler, "_on_cancel"))
def tombstone_forgotten_by_the_scheduler(
    original: Any, self: Scheduler, cancel: msg.Cancel, now: int
) -> None:
    if cancel.id in self.tickets:
        original(self, cancel, now)


@fault(2, (Origin, "_on_offered"))
def deadline_ignored_by_the_origin(original: Any, self: Origin, offered: Offered, now: int) -> None:
    original(self, offered, now)
    self._pending[offered.request.id].deadline_ns = None


@fault(8, (Scheduler, "_reject"))
def overflow_dropped_without_a_word(
    original: Any, self: Scheduler, ticket: Ticket, *args: Any
) -> None:
    """And so it stays when the origin asks."""
    original(self, ticket, *args)
    self._out = [
        effect
        for effect in self._out
        if not (isinstance(effect, Send) and isinstance(effect.message, msg.Rejected))
    ]
    ticket.end_code = None


# --- 3 right place -------------------------------------------------------------------------------


@fault(3, (Replica, "serves"))
def any_capability_started(_original: Any, _self: Replica, _request: msg.Request) -> bool:
    return True


@fault(3, (routing_module, "view_serves"), (registry_module, "view_serves"), (Replica, "serves"))
def context_limit_ignored(original: Any, *args: Any) -> Any:
    one = args[1]
    bent = replace(one, prompt_tokens=0, max_tokens=0)
    return original(args[0], bent, *args[2:])


@fault(3, (Ticket, "__init__"))
def delegated_back_to_the_same_replica(original: Any, self: Ticket, *args: Any, **kw: Any) -> None:
    original(self, *args, **kw)
    self.excluded = _Forgetful()


@fault(3, (Replica, "_on_assign"))
def stale_incarnation_accepted_by_a_replica(
    original: Any, self: Replica, assign: msg.Assign, now: int
) -> None:
    original(self, replace(assign, incarnation=self._incarnation), now)


@fault(3, (ReplicaView, "is_newer"))
def stale_registration_accepted(
    _original: Any, _self: ReplicaView, _registration: msg.Registration
) -> bool:
    return True


@fault(3, (Replica, "_on_stale_epoch"))
def stale_epoch_not_learnt(
    _original: Any, _self: Replica, _stale: msg.StaleEpoch, _now: int
) -> None:
    pass


@fault(3, (Ticket, "__init__"))
def refused_back_to_the_same_replica(original: Any, self: Ticket, *args: Any, **kw: Any) -> None:
    original(self, *args, **kw)
    self.refused_by = _Forgetful()


@fault(3, (Scheduler, "_contradicts_registry"))
def registration_believed_against_its_replica(
    _original: Any, _self: Scheduler, _back: msg.Delegate
) -> bool:
    return False


@fault(3, (ReplicaView, "become"))
def draining_replica_assigned_to(original: Any, self: ReplicaView, state: ReplicaState) -> None:
    original(self, state)
    self.takes_work = self.takes_work or state is ReplicaState.DRAINING


@fault(3, (Replica, "_on_assign"))
def epoch_ignored_by_a_replica(original: Any, self: Replica, assign: msg.Assign, now: int) -> None:
    original(self, replace(assign, epoch=max(assign.epoch, self._epoch)), now)


# --- 4 no shortcut -------------------------------------------------------------------------------


@fault(4, (Replica, "_hand_back"))
def replica_hands_over_to_a_replica(
    original: Any, self: Replica, slot: Slot, back: msg.HandBack, *args: Any
) -> None:
    original(self, slot, back, *args)
    self._out.append(Send(Inbox.REPLICA_ENTRY, "r0", msg.Entry(request=slot.request)))


# --- 5 monotone upgrade --------------------------------------------------------------------------


@fault(5, (Scheduler, "_nearest_rung"))
def upgrade_downwards(original: Any, self: Scheduler, ticket: Ticket, *args: Any) -> str | None:
    current = ticket.request.capability
    below = [name for name in self._capabilities if self._ladder.above(name) == current]
    return below[0] if below else original(self, ticket, *args)


@fault(5, (Scheduler, "_climb"))
def rung_forgotten_on_recovery(
    _original: Any, _self: Scheduler, _ticket: Ticket, _capability: str
) -> None:
    pass


# --- 6 whole stream ------------------------------------------------------------------------------


@fault(6, (Origin, "_accept"), (Replica, "_on_assign"))
def text_spliced_after_recovery(original: Any, self: Origin | Replica, *args: Any) -> Any:
    """Attempts begin anew, and whatever comes is put behind what the client has."""
    if isinstance(self, Replica):
        assign, now = args
        return original(self, replace(assign, request=replace(assign.request, resume_ids=[])), now)
    pending, frame, now = args
    start = pending.n_tokens(frame.choice)
    return original(self, pending, replace(frame, start=start), now)


@fault(6, (Origin, "_recover"))
def resumed_from_the_wrong_place(original: Any, self: Origin, pending: Pending, *args: Any) -> None:
    """The last token that the client has is not given to the attempt that resumes."""
    tokens = list(pending.tokens)
    original(self, pending, *args)
    for at, effect in enumerate(self._out):
        if isinstance(effect, Send) and isinstance(effect.message, msg.Submit) and tokens:
            request = replace(effect.message.request, resume_ids=[*tokens[:-1], 0])
            self._out[at] = replace(effect, message=replace(effect.message, request=request))


@fault(6, (Origin, "_on_frame"))
def two_attempts_mixed(original: Any, self: Origin, frame: msg.Frame, now: int) -> None:
    """Frames are taken from whichever attempt they come."""
    pending = self._pending.get(frame.id)
    if pending is None:
        return
    pending.stream = Stream(frame.replica, frame.incarnation, frame.attempt)
    original(self, replace(frame, submission=pending.submission), now)


@fault(6, (Origin, "_on_frame"))
def frames_delivered_as_they_come(original: Any, self: Origin, frame: msg.Frame, now: int) -> None:
    pending = self._pending.get(frame.id)
    if pending is not None and pending.stream is not None and frame.tokens:
        self._deliver(pending, frame, now)
        pending.next_sequence = frame.sequence + 1
        return
    original(self, frame, now)


@fault(6, (Origin, "_on_frame"))
def gap_taken_for_the_end(original: Any, self: Origin, frame: msg.Frame, now: int) -> None:
    """The end ends the request, though tokens before it are missing."""
    pending = self._pending.get(frame.id)
    if pending is not None and frame.end is not None:
        self._conclude(pending, frame, frame.end, now)
        return
    original(self, frame, now)


# --- 7 bounds hold -------------------------------------------------------------------------------


@fault(7, (Replica, "_stop"))
def credit_not_returned_on_cancel(original: Any, self: Replica, slot: Slot, *args: Any) -> None:
    slot.ordinal = None
    original(self, slot, *args)


@fault(7, (CreditBook, "take"))
def entry_costs_no_credit(_original: Any, _self: CreditBook) -> None:
    pass


@fault(7, (ReplicaView, "take_credit"))
def stale_credit_accepted(original: Any, self: ReplicaView, credit: msg.Credit, now: int) -> bool:
    """Counters are added where they should be folded: repeated and old ones count again."""
    before = self.granted_total if self.synced else 0
    sequence = max(credit.sequence, self.credit_sequence + 1)
    fresh = credit.sequence > self.credit_sequence
    granted = credit.granted_total if fresh else before + 1
    return bool(original(self, replace(credit, sequence=sequence, granted_total=granted), now))


@fault(7, (Scheduler, "_on_credit"))
def credit_of_an_earlier_epoch_accepted(
    original: Any, self: Scheduler, credit: msg.Credit, now: int
) -> None:
    original(self, replace(credit, epoch=self.epoch), now)


@fault(7, (Scheduler, "_on_credit"))
def credit_of_an_earlier_life_accepted(
    original: Any, self: Scheduler, credit: msg.Credit, now: int
) -> None:
    view = self.replicas.get(credit.replica)
    if view is not None:
        original(self, replace(credit, incarnation=view.incarnation), now)


@fault(7, (Replica, "__init__"))
def entry_queue_unbounded(original: Any, self: Replica, spec: Any, *args: Any, **kw: Any) -> None:
    original(self, replace(spec, entry_queue=10_000), *args, **kw)


@fault(7, (Replica, "_lose"))
def slot_freed_twice_when_the_worker_dies(
    original: Any, self: Replica, slot: Slot, *args: Any
) -> None:
    original(self, slot, *args)
    self._running -= 1


@fault(7, (Replica, "_on_worker_died"))
def worker_death_frees_no_slot(original: Any, self: Replica, died: Any, now: int) -> None:
    running = self._running
    original(self, died, now)
    self._running = running


@fault(7, (Replica, "_on_assign"))
def repeated_assignment_starts_twice(
    original: Any, self: Replica, assign: msg.Assign, now: int
) -> None:
    slot = self._slot(assign.request.id, assign.attempt)
    if slot is not None:
        self._drop(slot)
        self._credits._assigned = type(self._credits._assigned)()
    original(self, assign, now)


@fault(7, (Scheduler, "__init__"))
def recovery_unbounded(original: Any, self: Scheduler, *args: Any, **kw: Any) -> None:
    original(self, *args, **kw)
    self._rules = replace(self._rules, recovery_limit=10_000)


@fault(7, (Scheduler, "__init__"))
def recovery_bound_too_low(original: Any, self: Scheduler, *args: Any, **kw: Any) -> None:
    original(self, *args, **kw)
    self._rules = replace(self._rules, recovery_limit=self._rules.recovery_limit - 1)


@fault(7, (Origin, "_on_attempt_lost"))
def repeated_loss_recovered_again(
    original: Any, self: Origin, lost: msg.AttemptLost, now: int
) -> None:
    pending = self._pending.get(lost.id)
    if pending is not None:
        lost = replace(lost, submission=pending.submission)
    original(self, lost, now)


@fault(7, (Scheduler, "_attempt_after"))
def attempts_numbered_anew_after_a_restart(_original: Any, _self: Scheduler, ticket: Ticket) -> int:
    return ticket.last_attempt + 1


@fault(7, (Scheduler, "_take_new"))
def recovered_request_refused_for_fullness(
    original: Any, self: Scheduler, submit: msg.Submit, now: int
) -> None:
    request = submit.request
    if self._queues.depth(request.capability) < self._queue_limit(request.capability):
        original(self, submit, now)
        return
    ticket = self._new_ticket(request, submit.submission, now)
    self._reject(ticket, Code.QUEUE_FULL, "full", now)


@fault(7, (Scheduler, "_on_delegate"))
def delegated_request_refused_for_fullness(
    original: Any, self: Scheduler, back: msg.Delegate, now: int
) -> None:
    original(self, back, now)
    ticket = self.tickets.get(back.id)
    if ticket is None or ticket.state is not TicketState.QUEUED:
        return
    capability = ticket.request.capability
    if self._queues.depth(capability) > self._queue_limit(capability):
        self._reject(ticket, Code.QUEUE_FULL, "full", now)


@fault(7, (CreditBook, "report"))
def arrival_taken_for_that_of_all_before(original: Any, self: CreditBook, *args: Any) -> msg.Credit:
    credit: msg.Credit = original(self, *args)
    newest = max(self._assigned.sparse, default=self._assigned.watermark)
    return replace(credit, ordinals_below=newest)


@fault(7, (Router, "_kept_back"))
def reserve_ignored(_original: Any, _self: Router, _ticket: Ticket, _view: ReplicaView) -> int:
    return 0


@fault(7, (Scheduler, "_deadline_ns"))
def deadline_ignored_by_the_scheduler(_original: Any, _self: Scheduler, _ticket: Ticket) -> None:
    pass


@fault(7, (Scheduler, "_queue_limit"))
def capability_queue_unbounded(_original: Any, _self: Scheduler, _capability: str) -> int:
    return 10_000


@fault(7, (handbacks_module, "_is_current"))
def hand_back_counted_twice(_original: Any, ticket: Ticket, _back: msg.HandBack) -> bool:
    return ticket.state is not TicketState.ENDED


@fault(7, (ReplicaView, "assign"))
def ordinal_given_twice(
    original: Any, self: ReplicaView, request: str, attempt: int, now: int
) -> int:
    ordinal: int = original(self, request, attempt, now)
    self.ordinal -= ordinal % 2
    return ordinal


# --- 8 work conservation -------------------------------------------------------------------------


@fault(8, (Scheduler, "_fill"))
def lost_wake_up_of_a_queue(
    _original: Any, _self: Scheduler, _view: ReplicaView, _now: int
) -> None:
    pass


@fault(8, (Scheduler, "_say_again"))
def assignment_not_sent_again(
    _original: Any, _self: Scheduler, _view: ReplicaView, _now: int
) -> None:
    pass


@fault(8, (CreditBook, "begin_epoch"))
def ordinals_of_an_earlier_epoch_kept(_original: Any, _self: CreditBook) -> None:
    pass


@fault(8, (Replica, "_start_waiting"))
def lost_wake_up_of_an_entry_queue(_original: Any, _self: Replica, _now: int) -> None:
    pass


@fault(8, (Scheduler, "_answer_again"))
def question_of_an_origin_not_answered(_original: Any, _self: Scheduler, _ticket: Ticket) -> None:
    pass


@fault(8, (Scheduler, "_say_entries_again"))
def entry_not_sent_again(_original: Any, _self: Scheduler, _now: int) -> None:
    pass


@fault(8, (Origin, "_settled_message"))
def watermark_above_an_open_request(original: Any, self: Origin, ids: list[str]) -> msg.Settled:
    settled: msg.Settled = original(self, ids)
    return replace(settled, settled_below=settled.settled_below + 1)


@fault(8, (Replica, "_on_repair"))
def first_missing_frame_not_repaired(
    original: Any, self: Replica, repair: msg.Repair, now: int
) -> None:
    original(self, replace(repair, sequence=repair.sequence + 1), now)


@fault(8, (Scheduler, "_on_gone"))
def will_of_an_earlier_connection_believed(
    original: Any, self: Scheduler, gone: msg.Gone, now: int
) -> None:
    view = self.replicas.get(gone.source)
    if view is not None and view.incarnation == gone.incarnation:
        gone = replace(gone, connection=view.connection)
    original(self, gone, now)
