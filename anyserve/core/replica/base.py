"""What all parts of a replica share: its memory, and how it says things."""

from __future__ import annotations

from typing import Any, Final

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.capability import Ladder, any_serves, is_short_enough, most_tokens
from anyserve.core.counts import EndedCount
from anyserve.core.effects import Effect, Inbox, Send
from anyserve.core.enums import STATUS_WORDS
from anyserve.core.events import AttemptEnded
from anyserve.core.lifecycle import SlotState
from anyserve.core.machine import Explains, Machine, explain_all
from anyserve.core.messages import AttemptStatus, Code, Load, RefuseReason, ReplicaState
from anyserve.core.order import NEVER, Ordering
from anyserve.core.replica.credits import CreditBook
from anyserve.core.replica.due import Due
from anyserve.core.replica.slot import AttemptKey, Slot
from anyserve.core.replica.tombstones import Tombstones
from anyserve.core.seen import SettledIds
from anyserve.core.spec import ClusterSpec, ReplicaSpec

NO_EFFECTS: Final[list[Effect]] = []
"""Stands where no input is folded. Never written to."""


class ReplicaBase(Machine):
    """A replica's memory. Its parts, one module each, add the rules, each to the one before:
    work, intake, endings, timekeeping, and `Replica` at the end."""

    def __init__(
        self,
        spec: ReplicaSpec,
        cluster: ClusterSpec,
        *,
        incarnation: int = 1,
        boot: str = "",
        pid: int = 0,
        explains: Explains = explain_all,
    ) -> None:
        # What every request asks for comes first: compiled, fields lie in this order, and with many
        # replicas each line of them has to be fetched.
        self._slots: dict[str, Slot] = {}
        """By request, its newest attempt here; `Slot.earlier` leads to the others."""
        self._out = NO_EFFECTS
        """What is to be done, while an input is folded: made for it and gone with it, as with many
        replicas a list that lies about is in no cache when it is wanted next."""
        self._due = Due()
        self._timer_ns = NEVER
        self._credits = CreditBook(spec.concurrency + spec.prefetch)
        self._epoch = 0
        self._state = ReplicaState.STARTING
        self._concurrency = spec.concurrency
        self._running = 0
        self._n_held = self._n_waiting = 0
        self._draining = False
        self._held: list[tuple[object, int, Slot]] = []
        self._waiting: list[tuple[object, int, Slot]] = []
        self._yields = 0
        self._tokens = 0
        self._service_ms: float | None = None
        self._kv_usage: float | None = None
        self._incarnation = incarnation
        self._id = spec.id
        self._settled = SettledIds()
        self._cancelled: Tombstones[str | AttemptKey] = Tombstones()
        """Requests, and attempts of which no other one was meant."""
        self._most_tokens = most_tokens(spec.offers)
        self._spec = spec
        self._explains = explains
        self.beats_ns = NEVER
        """When it reports next, whatever happens."""
        self._ordering = Ordering(cluster.scheduler, boot)
        self._rules = cluster.scheduler
        self._delegation = cluster.delegation
        self._capabilities = {item.name: item for item in cluster.capabilities}
        self._ladder = Ladder(cluster.ladder.upgrades)
        self._boot = boot
        self._pid = pid
        self._engine = spec.engine.kind
        self._restarting = False
        self._connection = 0
        self._revision = 0
        self._pushes = 0
        self._tokens_per_s = 0.0
        self._tokens_since_ns = 0

    def serves(self, request: msg.Request) -> bool:
        """Whether a registered offer matches and admits the request (invariant 3)."""
        capability = request.capability
        return is_short_enough(self._most_tokens, request, capability) and (
            not request.attributes or any_serves(self._spec.offers, request, capability)
        )

    def _new_slot(self, request: msg.Request, attempt: int, submission: int, now: int) -> Slot:
        slot = Slot(request, attempt, submission, now)
        slot.explained = self._explains(slot.id)
        slot.earlier = self._slots.get(slot.id)
        self._slots[slot.id] = slot
        return slot

    def _drop(self, slot: Slot) -> None:
        slot.dropped = True
        self._due.forget()
        later = self._slots.get(slot.id)
        if later is slot:
            if slot.earlier is None:
                del self._slots[slot.id]
            else:
                self._slots[slot.id] = slot.earlier
            return
        while later is not None:
            if later.earlier is slot:
                later.earlier = slot.earlier
                return
            later = later.earlier

    def _slot(self, request_id: str, attempt: int) -> Slot | None:
        """This attempt, if it is here."""
        slot = self._slots.get(request_id)
        while slot is not None and slot.attempt != attempt:
            slot = slot.earlier
        return slot

    def _attempts(self, request_id: str) -> list[Slot]:
        """All attempts of a request that are here, the oldest first."""
        return _chain(self._slots.get(request_id))

    def _all_attempts(self) -> list[Slot]:
        """All that are here: request by request, as these came."""
        found: list[Slot] = []
        for newest in self._slots.values():
            if newest.earlier is None:
                found.append(newest)
            else:
                found += _chain(newest)
        return found

    def _admitted(self, slot: Slot) -> msg.Admitted:
        return msg.Admitted(
            id=slot.id,
            attempt=slot.attempt,
            submission=slot.submission,
            replica=self._id,
            incarnation=self._incarnation,
        )

    def _started(self, slot: Slot) -> msg.Started:
        return msg.Started(
            id=slot.id,
            attempt=slot.attempt,
            replica=self._id,
            incarnation=self._incarnation,
        )

    def _say_ended(self, slot: Slot, status: AttemptStatus) -> None:
        self._to_scheduler(
            msg.Ended(
                id=slot.id,
                attempt=slot.attempt,
                replica=self._id,
                incarnation=self._incarnation,
                status=status,
                started=slot.started_ns != NEVER,
            )
        )

    def _emit_ended(
        self,
        slot: Slot,
        status: AttemptStatus,
        times: msg.Times,
        code: Code | None,
        message: str,
    ) -> None:
        if not slot.explained:
            ended = EndedCount(STATUS_WORDS[status], slot.n_tokens(), times.prefill_ns)
            self._out.append(ended)
            return
        self._emit(
            AttemptEnded(
                id=slot.id,
                attempt=slot.attempt,
                status=STATUS_WORDS[status],
                n_tokens=slot.n_tokens(),
                times=times,
                code=code.value if code else None,
                message=message,
                cached_tokens=slot.cached_tokens,
            )
        )

    def _note_saturation(self) -> None:
        if self._state is ReplicaState.READY and self._running >= self._concurrency:
            self._state = ReplicaState.SATURATED
        elif self._state is ReplicaState.SATURATED and self._running < self._concurrency:
            self._state = ReplicaState.READY

    def _leave_queue(self, slot: Slot) -> None:
        """One waits no longer. Where nobody does, those that left before are forgotten."""
        if slot.state is SlotState.WAITING:
            self._n_waiting -= 1
            if not self._n_waiting:
                self._waiting.clear()
        elif slot.state is SlotState.HELD:
            self._n_held -= 1
            if not self._n_held:
                self._held.clear()

    def _learn_epoch(self, epoch: int) -> None:
        """A scheduler life not heard of before: tell it all that is here, then the counters."""
        if epoch <= self._epoch:
            return
        self._epoch = epoch
        self._credits.begin_epoch()
        self._emit(ev.EpochChanged(epoch=epoch))
        self._say_all()

    def _say_all(self) -> None:
        if not self._epoch:
            return
        # Before what is held: what is not named there has ended, and this is how.
        for slot in self._all_attempts():
            if slot.answer is not None and slot.entered:
                self._say_again(slot)
        held = [
            msg.Held(
                id=slot.id,
                attempt=slot.attempt,
                submission=slot.submission,
                started=slot.state is SlotState.RUNNING,
                entered=slot.entered,
            )
            for slot in self._all_attempts()
            if slot.live
        ]
        self._to_scheduler(
            msg.Holding(
                replica=self._id,
                incarnation=self._incarnation,
                epoch=self._epoch,
                held=held,
            )
        )
        self._report(self._load())

    def _say_again(self, slot: Slot) -> None:
        """A message about this attempt was repeated: its answer was lost, or is on its way."""
        if slot.lost:
            self._say_ended(slot, AttemptStatus.WORKER_DIED)
            self._say_lost(slot)
        elif slot.answer is not None:
            self._to_scheduler(msg.changed(slot.answer, epoch=self._epoch))  # type: ignore[arg-type]
        elif slot.rejection is not None:
            self._out.append(Send(Inbox.ORIGIN, slot.origin, slot.rejection))
        elif slot.end is not None:
            self._say_ended(slot, slot.end.status)
        elif slot.entered:
            self._to_scheduler(self._admitted(slot))
        elif slot.state is SlotState.RUNNING:
            self._to_scheduler(self._started(slot))

    def _say_lost(self, slot: Slot) -> None:
        lost = msg.AttemptLost(
            id=slot.id,
            attempt=slot.attempt,
            submission=slot.submission,
            code=Code.WORKER_DIED,
            started=True,
            capability=slot.request.capability,
        )
        self._out.append(Send(Inbox.ORIGIN, slot.origin, lost))

    def _keep_alive(self, origin: str, held: list[AttemptKey]) -> None:
        alive = msg.KeepAlive(replica=self._id, incarnation=self._incarnation, held=held)
        self._out.append(Send(Inbox.ORIGIN, origin, alive))

    def _register(self) -> None:
        self._revision += 1
        shown = ReplicaState.READY if self._state is ReplicaState.SATURATED else self._state
        registration = msg.Registration(
            replica=self._id,
            incarnation=self._incarnation,
            connection=self._connection,
            revision=self._revision,
            state=shown,
            offers=list(self._spec.offers),
            concurrency=self._concurrency,
            prefetch=self._spec.prefetch,
            boot=self._boot,
            engine=self._engine,
            pid=self._pid,
            restarting=self._restarting,
        )
        self._out.append(Send(Inbox.REPLICA_REGISTRATION, self._id, registration))

    def _emit_state(self) -> None:
        self._emit(
            ev.ReplicaChanged(
                replica=self._id,
                state=self._state.value,
                incarnation=self._incarnation,
                offers={offer.capability: offer.limits.max_tokens for offer in self._spec.offers},
                concurrency=self._concurrency,
                entry_queue=self._spec.entry_queue,
                engine=self._engine,
            )
        )

    def _set_state(self, state: ReplicaState) -> None:
        if state is self._state:
            return
        self._state = state
        self._register()
        self._emit_state()

    def _report(self, load: Load) -> None:
        lazy = not self._credits.urgent
        self._to_scheduler(self._credit(load), lazy=lazy)

    def _report_now(self) -> None:
        """Tell the counters with the end that changed them; alone where nothing ended just now."""
        out = self._out
        place = len(out) - 1
        while place >= 0:
            effect = out[place]
            if isinstance(effect, Send) and isinstance(effect.message, msg.Ended):
                ended = msg.ended_with(effect.message, self._credit(self._load()))
                out[place] = Send(Inbox.SCHEDULER, "", ended)
                return
            place -= 1
        self._report(self._load())

    def _load(self) -> Load:
        return Load(
            running=self._running,
            waiting=self._n_waiting,
            kv_usage=self._kv_usage,
            service_ms=self._service_ms,
            tokens_per_s=self._tokens_per_s,
        )

    def _credit(self, load: Load) -> msg.Credit:
        return self._credits.report(self._id, self._incarnation, self._epoch, load)

    def _to_scheduler(self, message: msg.SchedulerInbound, *, lazy: bool = False) -> None:
        self._out.append(Send(Inbox.SCHEDULER, "", message, lazy))

    def _emit(self, event: ev.AnyEvent) -> None:
        self._out.append(event)

    def _back(self, slot: Slot) -> dict[str, Any]:
        return {
            "id": slot.id,
            "attempt": slot.attempt,
            "submission": slot.submission,
            "replica": self._id,
            "incarnation": self._incarnation,
            "epoch": self._epoch,
            "request": slot.request,
        }

    def _hand_back(
        self, slot: Slot, back: msg.HandBack, reason: str, detail: str, now: int
    ) -> None:
        """Give a request that has not started back to the scheduler, and to nobody else."""
        self._leave_queue(slot)
        slot.go(SlotState.ENDED)
        slot.ended_ns = now
        slot.answer = back
        if slot.ordinal is not None:
            self._credits.grant()
        kind = type(back).__name__.lower()
        self._emit(
            ev.AttemptHandedBack(
                id=slot.id,
                attempt=slot.attempt,
                kind=kind,
                reason=reason,
                received_ns=slot.received_ns,
                detail=detail,
            )
        )
        self._to_scheduler(back)  # type: ignore[arg-type]

    def _return(self, slot: Slot) -> msg.Return:
        return msg.Return(**self._back(slot))

    def _refuse(self, slot: Slot, reason: RefuseReason, detail: str, now: int) -> None:
        back = msg.Refuse(reason=reason, detail=detail, **self._back(slot))
        self._hand_back(slot, back, reason.value, detail, now)

    def _reject(self, slot: Slot, code: Code, detail: str, now: int) -> None:
        self._leave_queue(slot)
        slot.go(SlotState.ENDED)
        slot.ended_ns = now
        retry_after_ms = None
        if code is Code.QUEUE_FULL:
            service_ms = self._service_ms or 1_000.0
            retry_after_ms = round((self._n_waiting + 1) * service_ms / self._concurrency)
        self._emit(
            ev.RequestRejected(
                id=slot.id,
                code=code.value,
                detail=detail,
                retry_after_ms=retry_after_ms,
                received_ns=slot.received_ns,
            )
        )
        rejected = msg.Rejected(
            id=slot.id,
            submission=slot.submission,
            code=code,
            detail=detail,
            retry_after_ms=retry_after_ms,
        )
        slot.rejection = rejected
        self._out.append(Send(Inbox.ORIGIN, slot.origin, rejected))
        self._say_ended(slot, AttemptStatus.FAILED)


def _chain(newest: Slot | None) -> list[Slot]:
    """An attempt and those that came before it, the oldest first."""
    found: list[Slot] = []
    while newest is not None:
        found.append(newest)
        newest = newest.earlier
    if len(found) > 1:
        found.reverse()
    return found
