"""`Replica.handle(now, message) -> effects`: serve, delegate or reject; never call a replica."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import msgspec

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.capability import Ladder, attributes_match
from anyserve.core.effects import CancelWork, Effect, Emit, Inbox, Send, SetTimer, StartWork
from anyserve.core.inputs import (
    BusDown,
    BusUp,
    Delta,
    Drain,
    Stepped,
    Stopping,
    Wake,
    WorkerDied,
    WorkerReady,
)
from anyserve.core.lifecycle import SlotState
from anyserve.core.messages import AttemptStatus, Code, DelegateReason, RefuseReason, ReplicaState
from anyserve.core.order import MS, deadline_ns, queue_order
from anyserve.core.replica.credits import CreditBook
from anyserve.core.replica.slot import AttemptKey, Slot
from anyserve.core.seen import SettledIds
from anyserve.core.spec import ClusterSpec, ReplicaSpec

FIRST_REPEAT_MS = 200
MAX_REPEATS = 8
KEEP_ALIVE_MS = 1_000
MAX_TOMBSTONES = 10_000
TOMBSTONE_S = 120
SERVICE_WEIGHT = 0.2
"""Weight of the newest request in the moving average of service times."""

ReplicaInput = (
    msg.ReplicaInbound
    | Wake
    | BusUp
    | BusDown
    | WorkerReady
    | WorkerDied
    | Stepped
    | Drain
    | Stopping
)
DueTime = tuple[int, int, AttemptKey | None]


class Replica:
    """One life of a replica. `start` it, then `handle`.

    Args:
        spec: what it offers and its limits.
        cluster: the rules that all obey.
        incarnation: of this process.
        boot: names the host life whose monotonic clock `now` is.
        pid: of the process, for people.
    """

    def __init__(
        self,
        spec: ReplicaSpec,
        cluster: ClusterSpec,
        *,
        incarnation: int = 1,
        boot: str = "",
        pid: int = 0,
    ) -> None:
        self._spec = spec
        self._rules = cluster.scheduler
        self._delegation = cluster.delegation
        self._capabilities = {item.name: item for item in cluster.capabilities}
        self._ladder = Ladder(cluster.ladder.upgrades)
        self._incarnation = incarnation
        self._boot = boot
        self._pid = pid
        self._engine = spec.engine.kind
        self._state = ReplicaState.STARTING
        self._draining = False
        self._restarting = False
        self._connection = 0
        self._revision = 0
        self._epoch = 0
        self._credits = CreditBook(spec.concurrency + spec.prefetch)
        self._slots: dict[AttemptKey, Slot] = {}
        self._by_request: dict[str, dict[int, Slot]] = {}
        self._running = 0
        self._held: list[tuple[object, int, Slot]] = []
        self._waiting: list[tuple[object, int, Slot]] = []
        self._n_held = self._n_waiting = 0
        self._pushes = 0
        self._yields = 0
        self._settled = SettledIds()
        self._cancelled: dict[str, int] = {}
        self._stopped_attempts: dict[AttemptKey, int] = {}
        self._kv_usage: float | None = None
        self._service_ms: float | None = None
        self._tokens = 0
        self._tokens_per_s = 0.0
        self._tokens_since_ns = 0
        self._due: list[DueTime] = []
        self._timer_ns: int | None = None
        self._out: list[Effect] = []
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            msg.Assign: self._on_assign,
            msg.Entry: self._on_entry,
            msg.CancelAttempt: self._on_cancel_attempt,
            msg.Cancel: self._on_cancel,
            msg.Settled: self._on_settled,
            msg.Repair: self._on_repair,
            msg.Yield: self._on_yield,
            msg.Control: self._on_control,
            msg.StaleEpoch: self._on_stale_epoch,
            msg.SchedulerState: self._on_scheduler_state,
            msg.Registration: self._on_registration,
            Wake: self._on_wake,
            BusUp: self._on_bus_up,
            BusDown: self._on_bus_down,
            WorkerReady: self._on_worker_ready,
            WorkerDied: self._on_worker_died,
            Stepped: self._on_stepped,
            Drain: self._on_drain,
            Stopping: self._on_stopping,
        }

    # --- life ------------------------------------------------------------------------------------

    def start(self, now: int) -> list[Effect]:
        """Begin: say that it starts, and set the heartbeat."""
        self._tokens_since_ns = now
        self._plan(now + self._rules.heartbeat_ms * MS, None)
        self._register()
        self._emit_state()
        return self._take(now)

    def handle(self, now: int, message: ReplicaInput) -> list[Effect]:
        """Fold one input. What is stale, repeated or meant for another life changes nothing."""
        self._handlers[type(message)](message, now)
        return self._take(now)

    # --- what can be seen from outside -----------------------------------------------------------

    @property
    def state(self) -> ReplicaState:
        """Where it is in its life."""
        return self._state

    @property
    def running(self) -> int:
        """Attempts in the engine."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests in the entry queue."""
        return self._n_waiting

    @property
    def held(self) -> int:
        """Assignments held within the prefetch."""
        return self._n_held

    @property
    def credit_outstanding(self) -> int:
        """Credit that the scheduler may still use."""
        return self._credits.outstanding

    @property
    def idle(self) -> bool:
        """Nothing runs or waits here."""
        return not (self._running or self._n_held or self._n_waiting)

    def offer_for(self, request: msg.Request) -> msg.Offer | None:
        """The registered offer that matches and admits the request (invariant 3)."""
        tokens = request.prompt_tokens + request.max_tokens
        for offer in self._spec.offers:
            limit = offer.limits.max_tokens
            if (
                offer.capability == request.capability
                and (limit is None or tokens <= limit)
                and attributes_match(request.attributes, offer.attributes)
            ):
                return offer
        return None

    # --- assignments -----------------------------------------------------------------------------

    def _on_assign(self, assign: msg.Assign, now: int) -> None:
        if assign.incarnation != self._incarnation or assign.epoch < self._epoch:
            return
        self._learn_epoch(assign.epoch)
        request, key = assign.request, (assign.request.id, assign.attempt)
        fresh = self._credits.see_assignment(assign.ordinal)
        known = self._slots.get(key)
        if known is not None:
            self._say_again(known)
            return
        if not fresh:
            return
        if request.id in self._settled or self._is_stopped(request.id, assign.attempt):
            self._credits.grant()
            return
        slot = self._new_slot(request, assign.attempt, assign.submission, now)
        slot.ordinal = assign.ordinal
        if self._draining:
            self._hand_back(slot, self._return(slot), "draining", "", now)
        elif self._state is ReplicaState.STARTING:
            self._refuse(slot, RefuseReason.STALE_REGISTRATION, "its worker is not ready", now)
        elif self.offer_for(request) is None:
            self._refuse(slot, RefuseReason.STALE_REGISTRATION, "not registered here", now)
        elif self._running < self._spec.concurrency:
            self._begin(slot, now)
        elif self._n_held < self._spec.prefetch:
            slot.go(SlotState.HELD)
            self._n_held += 1
            self._pushes += 1
            heapq.heappush(self._held, (slot.order, self._pushes, slot))
        else:
            self._refuse(slot, RefuseReason.STALE_CREDIT, "no free slot", now)

    def _refuse(self, slot: Slot, reason: RefuseReason, detail: str, now: int) -> None:
        back = msg.Refuse(reason=reason, detail=detail, **self._back(slot))
        self._hand_back(slot, back, reason.value, detail, now)

    def _return(self, slot: Slot) -> msg.Return:
        return msg.Return(**self._back(slot))

    def _back(self, slot: Slot) -> dict[str, Any]:
        return {
            "id": slot.id,
            "attempt": slot.attempt,
            "submission": slot.submission,
            "replica": self._spec.id,
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

    # --- entries ---------------------------------------------------------------------------------

    def _on_entry(self, entry: msg.Entry, now: int) -> None:
        if entry.incarnation is not None and entry.incarnation != self._incarnation:
            return
        if entry.epoch and entry.epoch < self._epoch:
            return
        request = entry.request
        known = self._slots.get((request.id, entry.attempt))
        if known is not None:
            self._say_again(known)
            return
        if request.id in self._settled or self._is_stopped(request.id, entry.attempt):
            return
        slot = self._new_slot(request, entry.attempt, entry.submission, now)
        slot.entered = True
        if self._draining:
            self._hand_back(slot, self._return(slot), "draining", "", now)
            return
        reason, detail = self._mismatch(request)
        if reason is not None:
            self._delegate_or_reject(slot, reason, detail, entry.delegations, now)
        else:
            self._admit(slot, entry.delegations, now)

    def _mismatch(self, request: msg.Request) -> tuple[DelegateReason | None, str]:
        if self.offer_for(request) is not None:
            return None, ""
        tokens = request.prompt_tokens + request.max_tokens
        for offer in self._spec.offers:
            if offer.capability == request.capability and attributes_match(
                request.attributes, offer.attributes
            ):
                limit = offer.limits.max_tokens
                return DelegateReason.TOO_LONG, f"{tokens} tokens > {limit}"
        return DelegateReason.NOT_REGISTERED, f"{request.capability} is not registered here"

    def _delegate_or_reject(
        self, slot: Slot, reason: DelegateReason, detail: str, delegations: int, now: int
    ) -> None:
        if delegations >= self._delegation.limit:
            text = f"{detail}, and {delegations} of {self._delegation.limit} delegations are used"
            self._reject(slot, Code.DELEGATION_EXHAUSTED, text, now)
            return
        min_rung: str | None = slot.request.capability
        if reason is DelegateReason.OVERLOAD:
            min_rung = self._ladder.above(slot.request.capability)
        if min_rung is None:
            self._reject(slot, Code.QUEUE_FULL, detail, now)
            return
        back = msg.Delegate(reason=reason, min_rung=min_rung, detail=detail, **self._back(slot))
        self._hand_back(slot, back, reason.value, detail, now)

    def _admit(self, slot: Slot, delegations: int, now: int) -> None:
        if self._can_start_entry():
            self._announce_entry(slot, 0)
            self._credits.take()
            self._begin(slot, now)
            return
        crowd = self._overload(slot.request)
        if crowd and delegations < self._delegation.limit:
            self._delegate_or_reject(slot, DelegateReason.OVERLOAD, crowd, delegations, now)
        elif self._n_waiting >= self._spec.entry_queue:
            text = f"{self._n_waiting} requests wait at {self._spec.id} already"
            self._reject(slot, Code.QUEUE_FULL, text, now)
        else:
            slot.go(SlotState.WAITING)
            self._n_waiting += 1
            self._pushes += 1
            heapq.heappush(self._waiting, (slot.order, self._pushes, slot))
            self._announce_entry(slot, self._n_waiting)

    def _can_start_entry(self) -> bool:
        return (
            self._state in (ReplicaState.READY, ReplicaState.SATURATED)
            and self._running < self._spec.concurrency
            and not self._n_waiting
        )

    def _overload(self, request: msg.Request) -> str:
        """Why this request should go up the ladder for want of room here; empty: it should not."""
        if not self._delegation.overload or self._ladder.above(request.capability) is None:
            return ""
        if self._n_waiting >= self._spec.entry_queue:
            return f"entry queue {self._n_waiting} of {self._spec.entry_queue}"
        spec = self._capabilities.get(request.capability)
        if spec is None or spec.target_wait_ms is None or self._service_ms is None:
            return ""
        wait_ms = (self._n_waiting + 1) * self._service_ms / self._spec.concurrency
        if wait_ms <= spec.target_wait_ms:
            return ""
        return f"predicted wait {wait_ms:.0f} ms > {spec.target_wait_ms:.0f} ms"

    def _announce_entry(self, slot: Slot, position: int) -> None:
        self._to_scheduler(self._admitted(slot))
        self._emit(
            ev.AttemptAdmitted(
                id=slot.id,
                attempt=slot.attempt,
                capability=slot.request.capability,
                position=position,
                received_ns=slot.received_ns,
            )
        )

    def _admitted(self, slot: Slot) -> msg.Admitted:
        return msg.Admitted(
            id=slot.id,
            attempt=slot.attempt,
            submission=slot.submission,
            replica=self._spec.id,
            incarnation=self._incarnation,
        )

    def _reject(self, slot: Slot, code: Code, detail: str, now: int) -> None:
        self._leave_queue(slot)
        slot.go(SlotState.ENDED)
        slot.ended_ns = now
        retry_after_ms = None
        if code is Code.QUEUE_FULL:
            service_ms = self._service_ms or 1_000.0
            retry_after_ms = round((self._n_waiting + 1) * service_ms / self._spec.concurrency)
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
        self._out.append(Send(Inbox.ORIGIN, slot.request.origin, rejected))
        self._say_ended(slot, AttemptStatus.FAILED)

    # --- work ------------------------------------------------------------------------------------

    def _new_slot(self, request: msg.Request, attempt: int, submission: int, now: int) -> Slot:
        order = queue_order(request, self._rules, self._boot, now)
        slot = Slot(request, attempt, submission, now, order=order)
        self._slots[slot.key] = slot
        self._by_request.setdefault(slot.id, {})[attempt] = slot
        return slot

    def _begin(self, slot: Slot, now: int) -> None:
        slot.go(SlotState.RUNNING)
        slot.started_ns = now
        self._running += 1
        self._note_saturation()
        self._out.append(StartWork(slot.request, slot.attempt, slot.submission))
        self._emit(
            ev.AttemptStarted(
                id=slot.id,
                attempt=slot.attempt,
                capability=slot.request.capability,
                received_ns=slot.received_ns,
                entered=slot.entered,
                resumed=slot.resumed,
            )
        )
        if not slot.entered:
            self._to_scheduler(self._started(slot))

    def _started(self, slot: Slot) -> msg.Started:
        return msg.Started(
            id=slot.id,
            attempt=slot.attempt,
            replica=self._spec.id,
            incarnation=self._incarnation,
        )

    def _on_stepped(self, stepped: Stepped, now: int) -> None:
        if stepped.kv_usage is not None:
            self._kv_usage = stepped.kv_usage
        for delta in stepped.deltas:
            slot = self._slots.get((delta.id, delta.attempt))
            if slot is not None and slot.state is SlotState.RUNNING:
                self._fold(slot, delta, now)
        self._start_waiting(now)

    def _fold(self, slot: Slot, delta: Delta, now: int) -> None:
        if delta.scheduled_ns is not None and slot.scheduled_ns is None:
            slot.scheduled_ns = delta.scheduled_ns
        if delta.cached_tokens is not None:
            slot.cached_tokens = delta.cached_tokens
        if delta.finish is not None:
            slot.finishes[delta.choice] = delta.finish
        made = slot.counts.get(delta.choice, 0)
        start = slot.resumed + made
        if delta.tokens or delta.data is not None:
            if slot.first_ns is None:
                slot.first_ns = now
                self._emit(ev.AttemptFirstToken(id=slot.id, attempt=slot.attempt))
            slot.counts[delta.choice] = made + len(delta.tokens)
            self._tokens += len(delta.tokens)
        end = self._end_of(slot, delta, now) if delta.done or delta.error is not None else None
        if delta.tokens or delta.data is not None or end is not None:
            self._send_frame(slot, delta, start, end, now)
        if end is not None:
            self._finish(slot, end, now)

    def _end_of(self, slot: Slot, delta: Delta, now: int) -> msg.End:
        if delta.error is not None:
            return slot.make_end(AttemptStatus.FAILED, now, delta.error_code, delta.error)
        if slot.cancelling:
            return slot.make_end(AttemptStatus.CANCELLED, now, Code.CLIENT_CANCELLED)
        return slot.make_end(AttemptStatus.COMPLETED, now)

    def _send_frame(
        self, slot: Slot, delta: Delta, start: int, end: msg.End | None, now: int
    ) -> None:
        frame = msg.Frame(
            id=slot.id,
            attempt=slot.attempt,
            submission=slot.submission,
            replica=self._spec.id,
            incarnation=self._incarnation,
            sequence=len(slot.frames),
            start=start,
            tokens=delta.tokens,
            choice=delta.choice,
            data=delta.data,
            end=end,
        )
        slot.frames.append(frame)
        slot.heard_ns = now
        self._out.append(Send(Inbox.ORIGIN, slot.request.origin, frame))

    def _finish(self, slot: Slot, end: msg.End, now: int) -> None:
        self._leave_engine(slot, now)
        slot.end = end
        if end.status is AttemptStatus.COMPLETED and slot.started_ns is not None:
            took_ms = (now - slot.started_ns) / MS
            before = self._service_ms if self._service_ms is not None else took_ms
            self._service_ms = before + SERVICE_WEIGHT * (took_ms - before)
        self._emit_ended(slot, end.status, end.times, end.code, end.message)
        self._say_ended(slot, end.status)
        if slot.forget:
            self._drop(slot)
        else:
            self._plan(now + FIRST_REPEAT_MS * MS, slot.key)

    def _leave_engine(self, slot: Slot, now: int) -> None:
        slot.go(SlotState.ENDED)
        slot.ended_ns = now
        self._running -= 1
        self._credits.grant()
        self._note_saturation()

    def _emit_ended(
        self,
        slot: Slot,
        status: AttemptStatus,
        times: msg.Times,
        code: Code | None,
        message: str,
    ) -> None:
        self._emit(
            ev.AttemptEnded(
                id=slot.id,
                attempt=slot.attempt,
                status=status.value,
                n_tokens=slot.made_tokens(),
                times=times,
                code=code.value if code else None,
                message=message,
                cached_tokens=slot.cached_tokens,
            )
        )

    def _say_ended(self, slot: Slot, status: AttemptStatus) -> None:
        self._to_scheduler(
            msg.Ended(
                id=slot.id,
                attempt=slot.attempt,
                replica=self._spec.id,
                incarnation=self._incarnation,
                status=status,
                started=slot.started_ns is not None,
            )
        )

    def _start_waiting(self, now: int) -> None:
        """Give free slots to what waits here, best first."""
        while self._running < self._spec.concurrency and self._state in (
            ReplicaState.READY,
            ReplicaState.SATURATED,
            ReplicaState.DRAINING,
        ):
            held = self._top(self._held, SlotState.HELD)
            waiting = self._top(self._waiting, SlotState.WAITING)
            if waiting is not None and held is None and self._yields > 0:
                self._yields -= 1
                return
            slot = held
            if slot is None or (waiting is not None and waiting.order < slot.order):
                slot = waiting
            if slot is None:
                return
            due = deadline_ns(slot.request, self._boot, slot.received_ns)
            if due is not None and now >= due:
                if slot.ordinal is not None:
                    self._credits.grant()
                self._reject(
                    slot, Code.DEADLINE_EXCEEDED, f"while it waited at {self._spec.id}", now
                )
                continue
            self._leave_queue(slot)
            if slot.entered:
                self._credits.take()
            self._begin(slot, now)

    def _top(self, heap: list[tuple[object, int, Slot]], state: SlotState) -> Slot | None:
        while heap and heap[0][2].state is not state:
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def _leave_queue(self, slot: Slot) -> None:
        if slot.state is SlotState.WAITING:
            self._n_waiting -= 1
        elif slot.state is SlotState.HELD:
            self._n_held -= 1

    # --- cancelling and settling -----------------------------------------------------------------

    def _on_cancel(self, cancel: msg.Cancel, now: int) -> None:
        slots = self._by_request.get(cancel.id)
        if slots is None:
            self._cancelled[cancel.id] = now
            _bound(self._cancelled)
            return
        for slot in list(slots.values()):
            self._stop(slot, now)
        self._start_waiting(now)

    def _on_cancel_attempt(self, cancel: msg.CancelAttempt, now: int) -> None:
        if cancel.incarnation != self._incarnation:
            return
        slot = self._slots.get((cancel.id, cancel.attempt))
        if slot is not None:
            self._stop(slot, now)
        else:
            self._stopped_attempts[cancel.id, cancel.attempt] = now
            _bound(self._stopped_attempts)
            if cancel.ordinal is not None and self._credits.see_assignment(cancel.ordinal):
                self._credits.grant()
        self._start_waiting(now)

    def _stop(self, slot: Slot, now: int) -> None:
        if slot.state is SlotState.RUNNING:
            if not slot.cancelling:
                slot.cancelling = True
                self._out.append(CancelWork(slot.id, slot.attempt))
        elif slot.live:
            self._leave_queue(slot)
            slot.go(SlotState.ENDED)
            slot.ended_ns = now
            if slot.ordinal is not None:
                self._credits.grant()
            end = slot.make_end(AttemptStatus.CANCELLED, now, Code.CLIENT_CANCELLED)
            slot.end = end
            self._emit_ended(slot, end.status, end.times, end.code, "")
            self._say_ended(slot, AttemptStatus.CANCELLED)

    def _is_stopped(self, request_id: str, attempt: int) -> bool:
        return (
            request_id in self._cancelled
            or self._stopped_attempts.pop((request_id, attempt), None) is not None
        )

    def _on_settled(self, settled: msg.Settled, now: int) -> None:
        for request_id in settled.ids:
            self._settled.add(request_id)
            self._cancelled.pop(request_id, None)
            for slot in list(self._by_request.get(request_id, {}).values()):
                if slot.live:
                    slot.forget = True
                    self._stop(slot, now)
                if not slot.live:
                    self._drop(slot)
        self._settled.raise_watermark(settled.origin, settled.incarnation, settled.settled_below)
        self._start_waiting(now)

    def _drop(self, slot: Slot) -> None:
        self._slots.pop(slot.key, None)
        attempts = self._by_request.get(slot.id)
        if attempts is not None:
            attempts.pop(slot.attempt, None)
            if not attempts:
                del self._by_request[slot.id]

    # --- saying things again ---------------------------------------------------------------------

    def _say_again(self, slot: Slot) -> None:
        """A message about this attempt was repeated: its answer was lost, or is on its way."""
        if slot.lost:
            self._say_ended(slot, AttemptStatus.WORKER_DIED)
            self._say_lost(slot)
        elif slot.answer is not None:
            self._to_scheduler(msgspec.structs.replace(slot.answer, epoch=self._epoch))  # type: ignore[arg-type]
        elif slot.end is not None:
            self._say_ended(slot, slot.end.status)
        elif slot.entered:
            self._to_scheduler(self._admitted(slot))
        elif slot.state is SlotState.RUNNING:
            self._to_scheduler(self._started(slot))

    def _on_repair(self, repair: msg.Repair, now: int) -> None:
        slot = self._slots.get((repair.id, repair.attempt))
        if slot is None:
            origin = repair.id.partition("/")[0]
            unknown = msg.UnknownAttempt(
                id=repair.id, attempt=repair.attempt, replica=self._spec.id
            )
            self._out.append(Send(Inbox.ORIGIN, origin, unknown))
            return
        slot.heard_ns = now
        if slot.answer is not None or slot.lost:
            self._say_again(slot)
        missing = slot.frames[repair.sequence :]
        for frame in missing:
            self._out.append(Send(Inbox.ORIGIN, slot.request.origin, frame))
        if not missing:
            self._keep_alive(slot.request.origin, [slot.key])

    def _keep_alive(self, origin: str, held: list[AttemptKey]) -> None:
        alive = msg.KeepAlive(replica=self._spec.id, incarnation=self._incarnation, held=held)
        self._out.append(Send(Inbox.ORIGIN, origin, alive))

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
        held = [
            msg.Held(
                id=slot.id,
                attempt=slot.attempt,
                submission=slot.submission,
                started=slot.state is SlotState.RUNNING,
                entered=slot.entered,
            )
            for slot in self._slots.values()
            if slot.live
        ]
        self._to_scheduler(
            msg.Holding(
                replica=self._spec.id,
                incarnation=self._incarnation,
                epoch=self._epoch,
                held=held,
            )
        )
        for slot in self._slots.values():
            if slot.answer is not None:
                self._say_again(slot)
        self._report()

    def _on_stale_epoch(self, stale: msg.StaleEpoch, now: int) -> None:  # noqa: ARG002
        self._learn_epoch(stale.epoch)

    def _on_scheduler_state(self, state: msg.SchedulerState, now: int) -> None:  # noqa: ARG002
        self._learn_epoch(state.epoch)

    # --- the worker and the operator -------------------------------------------------------------

    def _on_worker_ready(self, ready: WorkerReady, now: int) -> None:
        self._engine = ready.engine or self._engine
        self._restarting = False
        self._set_state(ReplicaState.DRAINING if self._draining else ReplicaState.READY)
        self._start_waiting(now)
        self._note_saturation()

    def _on_worker_died(self, died: WorkerDied, now: int) -> None:
        self._restarting = not died.final
        for slot in list(self._slots.values()):
            if slot.state is SlotState.RUNNING:
                self._lose(slot, died.reason, now)
            elif slot.state is SlotState.HELD or (died.final and slot.live):
                self._refuse(slot, RefuseReason.STALE_REGISTRATION, "its worker died", now)
        self._set_state(ReplicaState.STOPPED if died.final else ReplicaState.STARTING)

    def _lose(self, slot: Slot, reason: str, now: int) -> None:
        self._leave_engine(slot, now)
        status, code = AttemptStatus.WORKER_DIED, Code.WORKER_DIED
        self._emit_ended(slot, status, slot.times(now), code, reason)
        self._say_ended(slot, status)
        slot.lost = True
        self._say_lost(slot)

    def _say_lost(self, slot: Slot) -> None:
        lost = msg.AttemptLost(
            id=slot.id,
            attempt=slot.attempt,
            submission=slot.submission,
            code=Code.WORKER_DIED,
            started=True,
        )
        self._out.append(Send(Inbox.ORIGIN, slot.request.origin, lost))

    def _on_control(self, control: msg.Control, now: int) -> None:
        if control.action == "drain":
            self._on_drain(Drain(), now)
        elif control.action == "resume" and self._draining:
            self._draining = False
            if self._state is ReplicaState.DRAINING:
                self._set_state(ReplicaState.READY)
            self._start_waiting(now)
            self._note_saturation()

    def _on_drain(self, drain: Drain, now: int) -> None:  # noqa: ARG002
        if self._draining:
            return
        self._draining = True
        if self._state is not ReplicaState.STARTING:
            self._set_state(ReplicaState.DRAINING)
        for slot in list(self._slots.values()):
            if slot.state in (SlotState.WAITING, SlotState.HELD):
                self._hand_back(slot, self._return(slot), "draining", "", now)

    def _on_stopping(self, stopping: Stopping, now: int) -> None:
        self._on_worker_died(WorkerDied(reason="the replica stops", final=True), now)
        del stopping

    def _on_yield(self, hint: msg.Yield, now: int) -> None:  # noqa: ARG002
        self._yields = 1 if hint.epoch == self._epoch else 0

    def _on_registration(self, registration: msg.Registration, now: int) -> None:  # noqa: ARG002
        """Its own retained registration came back: an older life's must not stand."""
        if registration.incarnation < self._incarnation:
            self._register()

    def _note_saturation(self) -> None:
        if self._state is ReplicaState.READY and self._running >= self._spec.concurrency:
            self._state = ReplicaState.SATURATED
        elif self._state is ReplicaState.SATURATED and self._running < self._spec.concurrency:
            self._state = ReplicaState.READY

    def _set_state(self, state: ReplicaState) -> None:
        if state is self._state:
            return
        self._state = state
        self._register()
        self._emit_state()

    def _register(self) -> None:
        self._revision += 1
        shown = ReplicaState.READY if self._state is ReplicaState.SATURATED else self._state
        registration = msg.Registration(
            replica=self._spec.id,
            incarnation=self._incarnation,
            connection=self._connection,
            revision=self._revision,
            state=shown,
            offers=list(self._spec.offers),
            concurrency=self._spec.concurrency,
            prefetch=self._spec.prefetch,
            boot=self._boot,
            engine=self._engine,
            pid=self._pid,
            restarting=self._restarting,
        )
        self._out.append(Send(Inbox.REPLICA_REGISTRATION, self._spec.id, registration))

    def _emit_state(self) -> None:
        self._emit(
            ev.ReplicaChanged(
                replica=self._spec.id,
                state=self._state.value,
                incarnation=self._incarnation,
                offers={offer.capability: offer.limits.max_tokens for offer in self._spec.offers},
                concurrency=self._spec.concurrency,
                entry_queue=self._spec.entry_queue,
                engine=self._engine,
            )
        )

    # --- connection and time ---------------------------------------------------------------------

    def _on_bus_up(self, up: BusUp, now: int) -> None:  # noqa: ARG002
        self._connection = up.connection
        self._register()
        self._say_all()

    def _on_bus_down(self, down: BusDown, now: int) -> None:
        """Nothing to do: what was not heard is said again when the connection is back."""

    def _on_wake(self, wake: Wake, now: int) -> None:  # noqa: ARG002
        self._timer_ns = None
        while self._due and self._due[0][0] <= now:
            _, _, key = heapq.heappop(self._due)
            if key is None:
                self._beat(now)
            elif (slot := self._slots.get(key)) is not None and slot.end is not None:
                self._repeat_end(slot, now)

    def _beat(self, now: int) -> None:
        self._plan(now + self._rules.heartbeat_ms * MS, None)
        self._yields = 0
        self._start_waiting(now)
        if self._epoch:
            self._report(now)
        silent: dict[str, list[AttemptKey]] = {}
        for slot in list(self._slots.values()):
            if slot.live and now - slot.heard_ns >= KEEP_ALIVE_MS * MS // 2:
                slot.heard_ns = now
                silent.setdefault(slot.request.origin, []).append(slot.key)
            elif not slot.live and self._is_forgotten(slot, now):
                self._drop(slot)
        for origin, held in silent.items():
            self._keep_alive(origin, held)
        limit_ns = TOMBSTONE_S * 1000 * MS
        _expire(self._cancelled, now - limit_ns)
        _expire(self._stopped_attempts, now - limit_ns)

    def _is_forgotten(self, slot: Slot, now: int) -> bool:
        ended = slot.ended_ns if slot.ended_ns is not None else now
        return now - ended > slot.request.lifetime_ms * MS

    def _repeat_end(self, slot: Slot, now: int) -> None:
        """The origin has not settled it: say the end again, more and more rarely."""
        if slot.repeats >= MAX_REPEATS or not slot.frames:
            return
        slot.repeats += 1
        self._out.append(Send(Inbox.ORIGIN, slot.request.origin, slot.frames[-1]))
        self._plan(now + (FIRST_REPEAT_MS << slot.repeats) * MS, slot.key)

    def _plan(self, at_ns: int, key: AttemptKey | None) -> None:
        self._pushes += 1
        heapq.heappush(self._due, (at_ns, self._pushes, key))

    def _report(self, now: int | None = None) -> None:
        if now is not None:
            seconds = max(1, now - self._tokens_since_ns) / 1e9
            self._tokens_per_s = round(self._tokens / seconds, 1)
            self._tokens, self._tokens_since_ns = 0, now
        load = msg.Load(
            running=self._running,
            waiting=self._n_waiting,
            kv_usage=self._kv_usage,
            service_ms=self._service_ms,
            tokens_per_s=self._tokens_per_s,
        )
        if now is not None:
            self._emit(ev.ReplicaLoad(replica=self._spec.id, load=load))
        self._to_scheduler(
            self._credits.report(self._spec.id, self._incarnation, self._epoch, load)
        )

    def _to_scheduler(self, message: msg.SchedulerInbound) -> None:
        self._out.append(Send(Inbox.SCHEDULER, "", message))

    def _emit(self, event: ev.AnyEvent) -> None:
        self._out.append(Emit(event))

    def _take(self, now: int) -> list[Effect]:
        if self._credits.dirty and self._epoch:
            self._report()
        if self._due and (self._timer_ns is None or self._due[0][0] < self._timer_ns):
            self._timer_ns = max(now, self._due[0][0])
            self._out.append(SetTimer(self._timer_ns))
        out, self._out = self._out, []
        return out


def _expire(tombstones: dict[Any, int], before_ns: int) -> None:
    for key in [key for key, since in tombstones.items() if since < before_ns]:
        del tombstones[key]


def _bound(tombstones: dict[Any, int]) -> None:
    if len(tombstones) > MAX_TOMBSTONES:
        del tombstones[next(iter(tombstones))]
