"""What comes in: assignments, and requests that enter here. Serve, delegate, refuse or reject."""

from __future__ import annotations

import heapq

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.capability import attributes_match
from anyserve.core.lifecycle import SlotState
from anyserve.core.messages import Code, DelegateReason, RefuseReason, ReplicaState
from anyserve.core.replica.slot import Slot
from anyserve.core.replica.work import Work


class Intake(Work):
    """Decides on everything that wants a slot."""

    def _on_assign(self, assign: msg.Assign, now: int) -> None:
        if assign.incarnation != self._incarnation or assign.epoch < self._epoch:
            return
        self._learn_epoch(assign.epoch)
        request = assign.request
        fresh = self._credits.see_assignment(assign.ordinal)
        known = self._slot(request.id, assign.attempt)
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
        slot.delegations = assign.delegations
        if self._draining:
            self._hand_back(slot, self._return(slot), "draining", "", now)
        elif self._state in (ReplicaState.STARTING, ReplicaState.STOPPED):
            self._refuse(slot, RefuseReason.STALE_REGISTRATION, "its worker is not ready", now)
        elif not self.serves(request):
            self._refuse(slot, RefuseReason.STALE_REGISTRATION, "not registered here", now)
        elif self._running < self._concurrency:
            self._begin(slot, now)
        elif self._n_held < self._spec.prefetch:
            slot.go(SlotState.HELD)
            self._n_held += 1
            self._pushes += 1
            slot.order = self._ordering.place(request, now)
            heapq.heappush(self._held, (slot.order, self._pushes, slot))
        else:
            self._refuse(slot, RefuseReason.STALE_CREDIT, "no free slot", now)

    def _on_entry(self, entry: msg.Entry, now: int) -> None:
        if entry.incarnation is not None and entry.incarnation != self._incarnation:
            return
        if entry.epoch and entry.epoch < self._epoch:
            return
        request = entry.request
        known = self._slot(request.id, entry.attempt)
        if known is not None:
            self._say_again(known)
            return
        if request.id in self._settled or self._is_stopped(request.id, entry.attempt):
            return
        slot = self._new_slot(request, entry.attempt, entry.submission, now)
        slot.entered = True
        slot.delegations = entry.delegations
        if self._draining:
            self._hand_back(slot, self._return(slot), "draining", "", now)
            return
        reason, detail = self._mismatch(request)
        if reason is not None:
            self._delegate_or_reject(slot, reason, detail, entry.delegations, now)
        else:
            self._admit(slot, entry.delegations, now)

    def _mismatch(self, request: msg.Request) -> tuple[DelegateReason | None, str]:
        if self.serves(request):
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
            text = f"{self._n_waiting} requests wait at {self._id} already"
            self._reject(slot, Code.QUEUE_FULL, text, now)
        else:
            slot.go(SlotState.WAITING)
            self._n_waiting += 1
            self._pushes += 1
            slot.order = self._ordering.place(slot.request, now)
            heapq.heappush(self._waiting, (slot.order, self._pushes, slot))
            self._announce_entry(slot, self._n_waiting)

    def _can_start_entry(self) -> bool:
        return (
            self._state in (ReplicaState.READY, ReplicaState.SATURATED)
            and self._running < self._concurrency
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
        wait_ms = (self._n_waiting + 1) * self._service_ms / self._concurrency
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

    def _is_stopped(self, request_id: str, attempt: int) -> bool:
        gone = self._cancelled
        return bool(gone) and (request_id in gone or (request_id, attempt) in gone)
