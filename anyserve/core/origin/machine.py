"""`Origin.handle(now, message) -> effects`: submit, keep, deliver in order, recover, settle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.capability import Ladder
from anyserve.core.effects import (
    Deliver,
    Effect,
    Finish,
    Inbox,
    Outcome,
    OutcomeKind,
    Send,
    SetTimer,
)
from anyserve.core.inputs import BusDown, BusUp, Cancelled, Enough, Offered, Wake
from anyserve.core.lifecycle import OriginState
from anyserve.core.machine import Explains, Machine, explain_all
from anyserve.core.messages import AttemptStatus, Code
from anyserve.core.order import MS, NEVER, deadline_ns
from anyserve.core.origin.looks import Looks
from anyserve.core.origin.pending import SCHEDULER, Pending, Stream
from anyserve.core.origin.telling import tell_offered, tell_outcome
from anyserve.core.seen import Ordinals, life_prefix, number_after
from anyserve.core.spec import ClusterSpec

GAP_MS: Final = 100
"""A gap in the frames is repaired after this long."""
SILENCE_MS: Final = 2_000
"""Without a frame or a sign of life for this long, the holder is asked."""
LISTEN_MS: Final = 250
"""Silence is looked for at multiples of this."""
MAX_REPAIRS: Final = 3
"""Questions without an answer, one per second, after which the attempt counts as lost."""
MAX_RESEND_MS: Final = 30_000

EXPIRED: Final = frozenset({Code.DEADLINE_EXCEEDED, Code.STALE})
FAILED: Final = frozenset({Code.REPLICA_LOST, Code.WORKER_DIED, Code.POISONED, Code.RESUME_REFUSED})

OriginInput = msg.OriginInbound | Offered | Cancelled | Enough | Wake | BusUp | BusDown


class Origin(Machine):
    """One life of an origin. Offer with `Offered`, built on `next_id`; `Finish` comes once each.

    Args:
        name: its id in topics.
        cluster: the rules that all obey.
        incarnation: of this process.
        boot: names the host life whose monotonic clock `now` is.
        explains: of which requests all is told.
    """

    def __init__(
        self,
        name: str,
        cluster: ClusterSpec,
        *,
        incarnation: int = 1,
        boot: str = "",
        explains: Explains = explain_all,
    ) -> None:
        self._explains = explains
        self._name = name
        self._incarnation = incarnation
        self._prefix = life_prefix(name, incarnation)
        """What the ids of its requests begin with."""
        self._boot = boot
        self._mid_stream = {item.name: item.mid_stream for item in cluster.capabilities}
        self._resumes = "resume" in self._mid_stream.values()
        """Whether any capability lets an attempt go on amid an answer."""
        self._ladder = Ladder(cluster.ladder.upgrades)
        self._beat_ms = cluster.scheduler.heartbeat_ms
        self._epoch = 0
        self._connected = True
        self._pending: dict[str, Pending] = {}
        self._n = 0
        self._settled = Ordinals()
        self._looks = Looks()
        self._timer_ns = NEVER
        self._out: list[Effect] = []
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            Cancelled: self._on_cancelled,
            Enough: self._on_enough,
            msg.KeepAlive: self._on_keep_alive,
            msg.Accepted: self._on_accepted,
            msg.Rejected: self._on_rejected,
            msg.AttemptLost: self._on_attempt_lost,
            msg.UnknownAttempt: self._on_unknown_attempt,
            msg.StaleEpoch: self._on_stale_epoch,
            msg.SchedulerState: self._on_scheduler_state,
            Wake: self._on_wake,
            BusUp: self._on_bus_up,
            BusDown: self._on_bus_down,
        }

    def next_id(self) -> str:
        """A request id that was not given before: `<origin>/<incarnation>/<n>`, n from 1."""
        self._n += 1
        return f"{self._prefix}{self._n}"

    @property
    def open_requests(self) -> int:
        """Requests without an outcome."""
        return len(self._pending)

    @property
    def epoch(self) -> int:
        """The scheduler life it knows; 0: none yet."""
        return self._epoch

    def pending_ids(self) -> list[str]:
        """Ids of the requests without an outcome, oldest first."""
        return list(self._pending)

    def handle(self, now: int, message: OriginInput) -> list[Effect]:
        """Fold one input. What is stale, repeated or about a settled request changes nothing."""
        # Those that every request sends first: compiled, to tell them apart here costs nothing.
        if isinstance(message, msg.Frame):
            self._on_frame(message, now)
        elif isinstance(message, Offered):
            self._on_offered(message, now)
        else:
            self._handlers[type(message)](message, now)
        return self._take(now)

    # --- offering --------------------------------------------------------------------------------

    def _on_offered(self, offered: Offered, now: int) -> None:
        request = offered.request
        if request.first_epoch != self._epoch:
            request = msg.changed(request, first_epoch=self._epoch)
        pending = Pending(request, offered.entry, offered.intended_ns, now)
        pending.explained = self._explains(request.id)
        pending.resumable = offered.resumable and offered.choices == 1
        pending.deadline_ns = deadline_ns(request, self._boot, now)
        pending.end_ns = now + request.lifetime_ms * MS
        if pending.deadline_ns is not None:
            pending.end_ns = min(pending.end_ns, pending.deadline_ns)
        self._pending[pending.id] = pending
        self._out.append(tell_offered(pending, offered))
        pending.go(OriginState.WAITING)
        if offered.entry == SCHEDULER:
            self._submit(pending, now, resent=False)
        else:
            self._enter(pending, now, resent=False)

    def _submit(self, pending: Pending, now: int, *, resent: bool) -> None:
        pending.sent_epoch = self._epoch
        submit = msg.Submit(
            request=pending.request,
            epoch=self._epoch,
            submission=pending.submission,
            last_attempt=pending.last_attempt,
            resent=resent,
        )
        self._out.append(Send(Inbox.SCHEDULER, "", submit))
        self._note_submitted(pending, SCHEDULER, now, resent=resent)

    def _enter(self, pending: Pending, now: int, *, resent: bool) -> None:
        pending.sent_epoch = self._epoch
        pending.heard_of(pending.entry)
        entry = msg.Entry(request=pending.request, submission=pending.submission)
        self._out.append(Send(Inbox.REPLICA_ENTRY, pending.entry, entry))
        self._note_submitted(pending, pending.entry, now, resent=resent)

    def _note_submitted(self, pending: Pending, entry: str, now: int, *, resent: bool) -> None:
        if pending.explained:
            self._emit(
                ev.RequestSubmitted(
                    id=pending.id,
                    submission=pending.submission,
                    entry=entry,
                    resumed=len(pending.request.resume_ids),
                    resent=resent,
                )
            )
        pending.heard_ns = now
        self._listen(pending, now + SILENCE_MS * MS, now)

    # --- the stream ------------------------------------------------------------------------------

    def _on_frame(self, frame: msg.Frame, now: int) -> None:
        pending = self._pending.get(frame.id)
        if pending is None:
            self._settle_again(frame)
            return
        if frame.submission != pending.submission:
            return
        if pending.stream is None:
            pending.stream = Stream(frame.replica, frame.incarnation, frame.attempt)
        elif not pending.stream.has(frame):
            return
        self._hear(pending, frame.replica, frame.attempt, now)
        if frame.sequence == pending.next_sequence:
            self._take_frames(pending, frame, now)
        elif frame.sequence > pending.next_sequence:
            pending.hold_back(frame)
            self._note_gap(pending, now)

    def _take_frames(self, pending: Pending, frame: msg.Frame | None, now: int) -> None:
        """Take the frame that is due, and those behind it that came too early."""
        while frame is not None:
            pending.next_sequence += 1
            pending.gap_since_ns = None
            pending.repairs = 0
            if not self._accept(pending, frame, now):
                return
            frame = pending.buffer.pop(pending.next_sequence, None) if pending.buffer else None
        self._note_gap(pending, now)

    def _note_gap(self, pending: Pending, now: int) -> None:
        if pending.buffer and pending.gap_since_ns is None:
            pending.gap_since_ns = now
            self._looks.plan(now + GAP_MS * MS, pending.id)

    def _accept(self, pending: Pending, frame: msg.Frame, now: int) -> bool:
        """Take the next frame of the stream; False where the request is over."""
        made = pending.n_tokens(frame.choice)
        if frame.start != made and (frame.tokens or frame.has_data):
            text = f"token {made} was due, {frame.start} came"
            self._recover(pending, Code.REPLICA_LOST, text, now)
            return False
        if frame.capability:
            pending.served_as, pending.delegations = frame.capability, frame.delegations
        if frame.tokens or frame.has_data:
            self._deliver(pending, frame, now)
        if frame.end is not None:
            self._conclude(pending, frame, frame.end, now)
            return False
        return True

    def _deliver(self, pending: Pending, frame: msg.Frame, now: int) -> None:
        first = not pending.has_answer
        if frame.end is None:  # else there is nothing to go on with
            self._keep(pending, frame)
        pending.note_tokens(frame.choice, len(frame.tokens), now, frame.gaps)
        if pending.state is OriginState.WAITING:
            pending.go(OriginState.STREAMING)
        if first and pending.explained:
            self._emit(ev.RequestFirstToken(id=pending.id, attempt=frame.attempt))
        self._out.append(Deliver(pending.id, frame))

    def _keep(self, pending: Pending, frame: msg.Frame) -> None:
        """Keep its tokens where an attempt could go on after them."""
        if self._resumes:
            pending.keep(frame)

    def _conclude(self, pending: Pending, frame: msg.Frame, end: msg.End, now: int) -> None:
        cancelled = end.status is AttemptStatus.CANCELLED
        if cancelled and end.code not in msg.CANCEL_CODES:
            # Nobody cancelled the request: the scheduler had two attempts and stopped this one.
            self._keep(pending, frame)
            self._recover(pending, Code.REPLICA_LOST, f"attempt {frame.attempt} was stopped", now)
            return
        kind = OutcomeKind.CANCELLED if cancelled else OutcomeKind.FAILED
        if end.status is AttemptStatus.COMPLETED:
            kind = OutcomeKind.COMPLETED
        finish = end.finish[0] if len(end.finish) == 1 else _joined(end.finish)
        outcome = Outcome(
            kind=kind,
            code=end.code,
            message=end.message,
            finish=finish or None,
            served_by=frame.replica,
            attempt=frame.attempt,
            n_tokens=pending.n_tokens(),
            finishes=end.finish,
            cached_tokens=end.cached_tokens,
            capability=pending.served_as,
            delegations=pending.delegations,
        )
        self._finish(pending, outcome, now)

    # --- signs of life ---------------------------------------------------------------------------

    def _hear(self, pending: Pending, holder: str, attempt: int, now: int) -> None:
        pending.heard_ns = now
        pending.asked_again = 0
        pending.holder = holder
        pending.last_attempt = max(pending.last_attempt, attempt)
        if holder != SCHEDULER:
            pending.heard_of(holder)

    def _on_keep_alive(self, alive: msg.KeepAlive, now: int) -> None:
        for request_id, attempt in alive.held:
            pending = self._pending.get(request_id)
            if pending is None or attempt < pending.last_attempt:
                continue
            if pending.stream is None or pending.stream.attempt == attempt:
                pending.repairs = 0
                self._hear(pending, alive.replica, attempt, now)

    def _on_accepted(self, accepted: msg.Accepted, now: int) -> None:
        pending = self._pending.get(accepted.id)
        if pending is None or accepted.submission != pending.submission:
            return
        if pending.stream is None:
            self._hear(pending, SCHEDULER, pending.last_attempt, now)
            pending.sent_epoch = accepted.epoch
        self._climb(pending, accepted.capability)

    def _climb(self, pending: Pending, capability: str) -> None:
        """Note the rung that the request has reached; news may be old, so never down."""
        if self._ladder.is_at_or_above(capability, pending.request.capability):
            pending.request = msg.changed(pending.request, capability=capability)

    # --- bad ends --------------------------------------------------------------------------------

    def _on_rejected(self, rejected: msg.Rejected, now: int) -> None:
        pending = self._pending.get(rejected.id)
        if pending is None or rejected.submission != pending.submission:
            return
        code = rejected.code
        kind = OutcomeKind.REJECTED
        if code in EXPIRED:
            kind = OutcomeKind.EXPIRED
        elif code in msg.CANCEL_CODES:
            kind = OutcomeKind.CANCELLED
        elif code in FAILED or pending.has_answer:
            kind = OutcomeKind.FAILED
        outcome = Outcome(
            kind=kind,
            code=code,
            message=rejected.detail,
            retry_after_ms=rejected.retry_after_ms,
            n_tokens=pending.n_tokens(),
        )
        self._finish(pending, outcome, now)

    def _on_attempt_lost(self, lost: msg.AttemptLost, now: int) -> None:
        pending = self._pending.get(lost.id)
        if pending is None or lost.submission != pending.submission:
            return
        if pending.stream is not None and pending.stream.attempt != lost.attempt:
            return
        pending.last_attempt = max(pending.last_attempt, lost.attempt)
        self._climb(pending, lost.capability)
        self._recover(pending, lost.code, f"attempt {lost.attempt} was lost", now)

    def _on_unknown_attempt(self, unknown: msg.UnknownAttempt, now: int) -> None:
        pending = self._pending.get(unknown.id)
        if pending is None or unknown.attempt < pending.last_attempt:
            return
        if pending.stream is not None and pending.stream.attempt != unknown.attempt:
            return
        if pending.holder == SCHEDULER:
            return
        if pending.stream is None and pending.last_attempt == 0:
            # It never got there: the same entry again, not a recovery.
            self._enter(pending, now, resent=True)
            return
        text = f"{unknown.replica} does not know attempt {unknown.attempt}"
        self._recover(pending, Code.REPLICA_LOST, text, now)

    def _recover(self, pending: Pending, code: Code, why: str, now: int) -> None:
        """The attempt is gone: ask the scheduler for another, or end where that is not allowed."""
        if pending.has_answer:
            allowed = self._mid_stream.get(pending.request.capability, "fail") == "resume"
            if pending.n_tokens(0) >= pending.request.max_tokens > 0 and pending.resumable:
                self._finish(pending, self._completed(pending, "length"), now)
                return
            if not allowed or not pending.resumable:
                text = f"{why} after {pending.said_answer()} had reached the client"
                code = code if not allowed else Code.RESUME_REFUSED
                self._finish(pending, self._failure(pending, code, text), now)
                return
        if pending.state is OriginState.STREAMING:
            pending.go(OriginState.WAITING)
        pending.request = msg.changed(pending.request, resume_ids=list(pending.tokens))
        pending.begin_again(now)
        self._submit(pending, now, resent=False)

    def _failure(self, pending: Pending, code: Code, text: str) -> Outcome:
        return Outcome(
            kind=OutcomeKind.FAILED, code=code, message=text, n_tokens=pending.n_tokens()
        )

    # --- ending ----------------------------------------------------------------------------------

    def _on_cancelled(self, cancelled: Cancelled, now: int) -> None:
        pending = self._pending.get(cancelled.id)
        if pending is not None:
            expired = cancelled.code in EXPIRED
            kind = OutcomeKind.EXPIRED if expired else OutcomeKind.CANCELLED
            self._give_up(pending, kind, cancelled.code, "", now)

    def _on_enough(self, enough: Enough, now: int) -> None:
        pending = self._pending.get(enough.id)
        if pending is not None:
            self._cancel_everywhere(pending, Code.CLIENT_CANCELLED)
            self._finish(pending, self._completed(pending, "stop"), now)

    def _give_up(
        self, pending: Pending, kind: OutcomeKind, code: Code, message: str, now: int
    ) -> None:
        self._cancel_everywhere(pending, code)
        outcome = Outcome(kind=kind, code=code, message=message, n_tokens=pending.n_tokens())
        self._finish(pending, outcome, now)

    def _cancel_everywhere(self, pending: Pending, code: Code) -> None:
        cancel = msg.Cancel(id=pending.id, code=code)
        self._out.append(Send(Inbox.SCHEDULER, "", cancel))
        for replica in pending.replicas():
            self._out.append(Send(Inbox.REPLICA_ENTRY, replica, cancel))

    def _completed(self, pending: Pending, finish: str) -> Outcome:
        """Completed by what the origin knows itself, without an attempt's last word."""
        return Outcome(
            kind=OutcomeKind.COMPLETED,
            finish=finish,
            served_by=pending.stream.replica if pending.stream is not None else None,
            n_tokens=pending.n_tokens(),
            capability=pending.served_as,
            delegations=pending.delegations,
        )

    def _finish(self, pending: Pending, outcome: Outcome, now: int) -> None:
        pending.go(OriginState.SETTLED)
        del self._pending[pending.id]
        self._out.append(tell_outcome(pending, outcome, now))
        self._settled.add(number_after(self._prefix, pending.id))
        self._settle(pending.id, pending.replicas())
        self._out.append(Finish(pending.id, outcome))

    def _settle(self, request_id: str, replicas: list[str]) -> None:
        settled = self._settled_message([request_id])
        self._out.append(Send(Inbox.SCHEDULER, "", settled))
        for replica in replicas:
            self._out.append(Send(Inbox.REPLICA_ENTRY, replica, settled))

    def _settle_again(self, frame: msg.Frame) -> None:
        """A replica still holds what is over: only ends are answered, they come rarely."""
        if frame.end is not None and number_after(self._prefix, frame.id) >= 0:
            settled = self._settled_message([frame.id])
            self._out.append(Send(Inbox.REPLICA_ENTRY, frame.replica, settled))

    def _settle_all(self) -> None:
        """The scheduler may have missed what was settled: say it in one message."""
        ids = [f"{self._prefix}{number}" for number in self._settled.sparse]
        message = msg.changed(self._settled_message(ids), all_open=True)
        self._out.append(Send(Inbox.SCHEDULER, "", message))

    def _settled_message(self, ids: list[str]) -> msg.Settled:
        return msg.Settled(
            origin=self._name,
            incarnation=self._incarnation,
            ids=ids,
            settled_below=self._settled.watermark + 1,
        )

    # --- scheduler lives, connection and time ----------------------------------------------------

    def _on_stale_epoch(self, stale: msg.StaleEpoch, now: int) -> None:
        self._learn_epoch(stale.epoch, now)

    def _on_scheduler_state(self, state: msg.SchedulerState, now: int) -> None:
        if state.v not in msg.SPOKEN_VERSIONS:
            text = f"the scheduler speaks version {state.v} of the protocol"
            self._emit(ev.BusTrouble(kind="foreign", detail=f"{text}, not {msg.PROTOCOL_VERSION}"))
            return
        self._learn_epoch(state.epoch, now)

    def _learn_epoch(self, epoch: int, now: int) -> None:
        """A new scheduler life knows nothing of what waited: say it again."""
        if epoch <= self._epoch:
            return
        self._epoch = epoch
        self._emit(ev.EpochChanged(epoch=epoch))
        self._settle_all()
        for pending in self._pending.values():
            if pending.stream is not None or pending.sent_epoch == epoch:
                continue
            if pending.holder in (None, SCHEDULER) and self._goes_to_scheduler(pending):
                self._submit(pending, now, resent=True)

    def _goes_to_scheduler(self, pending: Pending) -> bool:
        return pending.entry == SCHEDULER or pending.submission > 1 or pending.holder == SCHEDULER

    def _on_bus_up(self, up: BusUp, now: int) -> None:  # noqa: ARG002
        self._connected = True
        if self._epoch:
            self._settle_all()
        grace = now + self._beat_ms * MS
        for pending in self._pending.values():
            pending.heard_ns = max(pending.heard_ns, grace - SILENCE_MS * MS)
            self._looks.plan(grace, pending.id)

    def _on_bus_down(self, down: BusDown, now: int) -> None:  # noqa: ARG002
        self._connected = False

    def _on_wake(self, wake: Wake, now: int) -> None:  # noqa: ARG002
        self._timer_ns = NEVER
        for request_id in self._looks.take(now):
            pending = self._pending.get(request_id)
            if pending is not None:
                self._look_after(pending, now)

    def _look_after(self, pending: Pending, now: int) -> None:
        """Something was due for this request: an end, a repair, or a question."""
        if pending.deadline_ns is not None and now >= pending.deadline_ns:
            text = "its deadline passed"
            self._give_up(pending, OutcomeKind.EXPIRED, Code.DEADLINE_EXCEEDED, text, now)
            return
        if now - pending.request.offered_ns >= pending.request.lifetime_ms * MS:
            text = "its lifetime ended"
            self._give_up(pending, OutcomeKind.EXPIRED, Code.STALE, text, now)
            return
        if not self._connected:
            self._look_again(pending, pending.end_ns, now)
            return
        gap = pending.gap_since_ns
        if gap is not None and pending.stream is not None and now - gap >= GAP_MS * MS:
            pending.gap_since_ns = now
            self._repair(pending, now)
        elif now - pending.heard_ns >= self._patience_ms(pending) * MS:
            self._ask(pending, now)
        else:
            self._listen(pending, pending.heard_ns + self._patience_ms(pending) * MS, now)

    def _listen(self, pending: Pending, until_ns: int, now: int) -> None:
        """Look whether anything was heard by then; at few times, for many requests together."""
        self._look_again(pending, until_ns + -until_ns % (LISTEN_MS * MS), now)

    def _look_again(self, pending: Pending, at_ns: int, now: int) -> None:
        """Look after it then, or at its end if that comes first."""
        if now < pending.end_ns < at_ns:
            at_ns = pending.end_ns
        self._looks.plan(at_ns, pending.id)

    def _patience_ms(self, pending: Pending) -> int:
        if pending.repairs:
            return 1_000
        return min(SILENCE_MS << min(pending.asked_again, 8), MAX_RESEND_MS)

    def _ask(self, pending: Pending, now: int) -> None:
        """Silence: ask whoever should have it."""
        holder = pending.holder
        at_replica = holder not in (None, SCHEDULER) or (
            holder is None and not self._goes_to_scheduler(pending)
        )
        pending.heard_ns = now
        if at_replica and pending.repairs >= MAX_REPAIRS:
            text = f"{holder or pending.entry} did not answer"
            self._recover(pending, Code.REPLICA_LOST, text, now)
        elif at_replica:
            self._repair(pending, now)
        else:
            pending.asked_again += 1
            self._submit(pending, now, resent=True)

    def _repair(self, pending: Pending, now: int) -> None:
        pending.repairs += 1
        replica = pending.stream.replica if pending.stream else pending.holder or pending.entry
        attempt = pending.stream.attempt if pending.stream else pending.last_attempt
        repair = msg.Repair(
            id=pending.id,
            attempt=attempt or msg.ENTRY_ATTEMPT,
            sequence=pending.next_sequence,
        )
        self._out.append(Send(Inbox.REPLICA_ENTRY, replica, repair))
        self._look_again(pending, now + 1_000 * MS, now)

    def _emit(self, event: ev.AnyEvent) -> None:
        self._out.append(event)

    def _take(self, now: int) -> list[Effect]:
        if self._looks.soonest_ns < self._timer_ns:
            self._set_timer(now)
        out, self._out = self._out, []
        return out

    def _set_timer(self, now: int) -> None:
        """Wake at the first look that matters, unless the timer is set to go off before it."""
        first_ns = self._looks.first_ns(self._pending)
        if first_ns is not None and first_ns < self._timer_ns:
            self._timer_ns = max(now, first_ns)
            self._out.append(SetTimer(self._timer_ns))


def _joined(reasons: list[str]) -> str:
    return ",".join(sorted({reason for reason in reasons if reason}))
