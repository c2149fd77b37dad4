"""From a slot to the worker and back: starting, folding steps, ending, losing."""

from __future__ import annotations

import heapq
from typing import Final

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.counts import StartedCount
from anyserve.core.effects import Inbox, Send, StartWork
from anyserve.core.events import AttemptStarted
from anyserve.core.inputs import (
    Delta,
    Stepped,
    WorkerDied,
    WorkerReady,
)
from anyserve.core.lifecycle import SlotState
from anyserve.core.messages import AttemptStatus, Code, RefuseReason, ReplicaState
from anyserve.core.order import MS, NEVER, deadline_ns
from anyserve.core.replica.base import ReplicaBase
from anyserve.core.replica.slot import Slot

SERVICE_WEIGHT: Final = 0.2
"""Weight of the newest request in the moving average of service times."""
FIRST_REPEAT_MS: Final = 200


class Work(ReplicaBase):
    """What runs, and what of it the origin gets."""

    def _begin(self, slot: Slot, now: int) -> None:
        slot.go(SlotState.RUNNING)
        slot.started_ns = now
        self._running += 1
        self._note_saturation()
        self._out.append(StartWork(slot.request, slot.attempt, slot.submission))
        self._tell_started(slot)
        if not slot.entered:
            self._to_scheduler(self._started(slot), lazy=True)

    def _tell_started(self, slot: Slot) -> None:
        if not slot.explained:
            self._out.append(StartedCount(slot.id, slot.received_ns))
            return
        self._emit(
            AttemptStarted(
                id=slot.id,
                attempt=slot.attempt,
                capability=slot.request.capability,
                received_ns=slot.received_ns,
                entered=slot.entered,
                resumed=slot.resumed,
            )
        )

    def _on_stepped(self, stepped: Stepped, now: int) -> None:
        if stepped.kv_usage is not None:
            self._kv_usage = stepped.kv_usage
        for delta in stepped.deltas:
            slot = self._slot(delta.id, delta.attempt)
            if slot is not None and slot.state is SlotState.RUNNING:
                self._fold(slot, delta, now)
        self._start_waiting(now)

    def _fold(self, slot: Slot, delta: Delta, now: int) -> None:
        if delta.scheduled_ns is not None and slot.scheduled_ns == NEVER:
            slot.scheduled_ns = delta.scheduled_ns
        if delta.cached_tokens is not None:
            slot.cached_tokens = delta.cached_tokens
        if delta.finish is not None:
            slot.note_finish(delta.choice, delta.finish)
        start = slot.resumed + slot.n_tokens(delta.choice)
        if delta.tokens or delta.data is not None:
            if slot.first_ns == NEVER:
                slot.first_ns = now
                if slot.explained:
                    self._emit(ev.AttemptFirstToken(id=slot.id, attempt=slot.attempt))
            slot.count(delta.choice, len(delta.tokens))
            self._tokens += len(delta.tokens)
        end = self._end_of(slot, delta, now) if delta.done or delta.error is not None else None
        if delta.tokens or delta.data is not None or end is not None:
            self._send_frame(slot, delta, start, end, now)
        if end is not None:
            self._finish(slot, end, now)

    def _end_of(self, slot: Slot, delta: Delta, now: int) -> msg.End:
        if delta.error is not None:
            return slot.make_end(AttemptStatus.FAILED, now, delta.error_code, delta.error)
        if slot.stop_code is not None:
            return slot.make_end(AttemptStatus.CANCELLED, now, slot.stop_code)
        return slot.make_end(AttemptStatus.COMPLETED, now)

    def _send_frame(
        self, slot: Slot, delta: Delta, start: int, end: msg.End | None, now: int
    ) -> None:
        sequence = slot.n_frames
        first = not sequence
        frame = msg.Frame(
            id=slot.id,
            attempt=slot.attempt,
            submission=slot.submission,
            replica=self._id,
            incarnation=self._incarnation,
            sequence=sequence,
            start=start,
            tokens=delta.tokens,
            choice=delta.choice,
            data=msg.NO_DATA if delta.data is None else delta.data,
            gaps=delta.gaps,
            end=end,
            capability=slot.request.capability if first else "",
            delegations=slot.delegations if first else 0,
        )
        slot.say(frame)
        slot.heard_ns = now
        self._out.append(Send(Inbox.ORIGIN, slot.origin, frame))

    def _finish(self, slot: Slot, end: msg.End, now: int) -> None:
        self._leave_engine(slot, now)
        slot.end = end
        if end.status is AttemptStatus.COMPLETED and slot.started_ns != NEVER:
            took_ms = (now - slot.started_ns) / MS
            before = self._service_ms if self._service_ms is not None else took_ms
            self._service_ms = before + SERVICE_WEIGHT * (took_ms - before)
        self._emit_ended(slot, end.status, end.times, end.code, end.message)
        self._say_ended(slot, end.status)
        if slot.forget:
            self._drop(slot)
        else:
            self._due.plan_end(now + FIRST_REPEAT_MS * MS, slot)

    def _leave_engine(self, slot: Slot, now: int) -> None:
        slot.go(SlotState.ENDED)
        slot.ended_ns = now
        self._running -= 1
        self._credits.grant()
        self._note_saturation()

    def _start_waiting(self, now: int) -> None:
        """Give free slots to what waits here, best first."""
        if not (self._n_held or self._n_waiting):
            return
        while self._running < self._concurrency and self._state in (
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
                self._reject(slot, Code.DEADLINE_EXCEEDED, f"while it waited at {self._id}", now)
                continue
            self._leave_queue(slot)
            if slot.entered:
                self._credits.take()
            self._begin(slot, now)

    def _top(self, heap: list[tuple[object, int, Slot]], state: SlotState) -> Slot | None:
        while heap and heap[0][2].state is not state:
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def _on_worker_ready(self, ready: WorkerReady, now: int) -> None:
        self._engine = ready.engine or self._engine
        self._restarting = False
        self._set_state(ReplicaState.DRAINING if self._draining else ReplicaState.READY)
        self._start_waiting(now)
        self._note_saturation()

    def _on_worker_died(self, died: WorkerDied, now: int) -> None:
        self._restarting = not died.final
        for slot in self._all_attempts():
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
