"""What takes work away: cancels, settlements, repairs, draining."""

from __future__ import annotations

from anyserve.core import messages as msg
from anyserve.core.effects import CancelWork, Inbox, Send
from anyserve.core.inputs import (
    Drain,
    Stopping,
    WorkerDied,
)
from anyserve.core.lifecycle import SlotState
from anyserve.core.messages import AttemptStatus, Code, ReplicaState
from anyserve.core.replica.intake import Intake
from anyserve.core.replica.slot import Slot


class Endings(Intake):
    """Messages that end, free or repeat."""

    def _on_cancel(self, cancel: msg.Cancel, now: int) -> None:
        # Also where an attempt is here: another one may still be on its way.
        self._cancelled.put(cancel.id, now)
        for slot in self._attempts(cancel.id):
            self._stop(slot, cancel.code, now)
        self._start_waiting(now)

    def _on_cancel_attempt(self, cancel: msg.CancelAttempt, now: int) -> None:
        if cancel.incarnation != self._incarnation:
            return
        self._learn_epoch(cancel.epoch)
        slot = self._slot(cancel.id, cancel.attempt)
        if slot is not None:
            self._stop(slot, cancel.code, now)
        else:
            self._cancelled.put((cancel.id, cancel.attempt), now)
            # Each scheduler life counts from 1: an earlier one's ordinal is another assignment's.
            fresh = cancel.ordinal is not None and cancel.epoch == self._epoch
            if fresh and self._credits.see_assignment(cancel.ordinal or 0):
                self._credits.grant()
        self._start_waiting(now)

    def _stop(self, slot: Slot, code: Code, now: int) -> None:
        if slot.state is SlotState.RUNNING:
            if slot.stop_code is None:
                slot.stop_code = code
                self._out.append(CancelWork(slot.id, slot.attempt))
        elif slot.live:
            self._leave_queue(slot)
            slot.go(SlotState.ENDED)
            slot.ended_ns = now
            if slot.ordinal is not None:
                self._credits.grant()
            end = slot.make_end(AttemptStatus.CANCELLED, now, code)
            slot.end = end
            self._emit_ended(slot, end.status, end.times, end.code, "")
            self._say_ended(slot, AttemptStatus.CANCELLED)

    def _on_settled(self, settled: msg.Settled, now: int) -> None:
        for request_id in settled.ids:
            self._settled.add(request_id)
            self._cancelled.pop(request_id)
            for slot in self._attempts(request_id):
                if slot.live:
                    slot.forget = True
                    self._stop(slot, Code.CLIENT_CANCELLED, now)
                if not slot.live:
                    self._drop(slot)
        self._settled.raise_watermark(settled.origin, settled.incarnation, settled.settled_below)
        self._start_waiting(now)

    def _on_repair(self, repair: msg.Repair, now: int) -> None:
        slot = self._slot(repair.id, repair.attempt)
        if slot is None:
            origin = msg.origin_of(repair.id)
            unknown = msg.UnknownAttempt(id=repair.id, attempt=repair.attempt, replica=self._id)
            self._out.append(Send(Inbox.ORIGIN, origin, unknown))
            return
        slot.heard_ns = now
        if slot.answer is not None or slot.lost or slot.rejection is not None:
            self._say_again(slot)
        missing = slot.frames_from(repair.sequence)
        for frame in missing:
            self._out.append(Send(Inbox.ORIGIN, slot.origin, frame))
        if not missing:
            self._keep_alive(slot.origin, [slot.key])

    def _on_drain(self, drain: Drain, now: int) -> None:  # noqa: ARG002
        if self._draining:
            return
        self._draining = True
        if self._state is not ReplicaState.STARTING:
            self._set_state(ReplicaState.DRAINING)
        for slot in self._all_attempts():
            if slot.state in (SlotState.WAITING, SlotState.HELD):
                self._hand_back(slot, self._return(slot), "draining", "", now)

    def _on_stopping(self, stopping: Stopping, now: int) -> None:
        self._on_worker_died(WorkerDied(reason="the replica stops", final=True), now)
        del stopping

    def _on_control(self, control: msg.Control, now: int) -> None:
        if control.action == "drain":
            self._on_drain(Drain(), now)
        elif control.action == "resume" and self._draining:
            self._draining = False
            if self._state is ReplicaState.DRAINING:
                self._set_state(ReplicaState.READY)
            self._start_waiting(now)
            self._note_saturation()

    def _on_yield(self, hint: msg.Yield, now: int) -> None:  # noqa: ARG002
        self._yields = 1 if hint.epoch == self._epoch else 0
