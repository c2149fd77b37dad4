"""What time and connection do: heartbeats, keep-alives, repeated ends, new scheduler lives."""

from __future__ import annotations

from typing import Final

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.effects import Inbox, Send
from anyserve.core.inputs import (
    BusDown,
    BusUp,
    Wake,
)
from anyserve.core.order import MS, NEVER
from anyserve.core.replica.endings import Endings
from anyserve.core.replica.slot import AttemptKey, Slot
from anyserve.core.replica.work import FIRST_REPEAT_MS

KEEP_ALIVE_MS: Final = 1_000
BOUNCED_MS: Final = 30_000
"""How long an attempt that never ran is remembered, so that repetitions are recognised."""
MAX_REPEATS: Final = 8
TOMBSTONE_S: Final = 120


class Timekeeping(Endings):
    """Everything that happens because time passed or a connection came back."""

    def _on_stale_epoch(self, stale: msg.StaleEpoch, now: int) -> None:  # noqa: ARG002
        self._learn_epoch(stale.epoch)

    def _on_scheduler_state(self, state: msg.SchedulerState, now: int) -> None:  # noqa: ARG002
        if state.v not in msg.SPOKEN_VERSIONS:
            text = f"the scheduler speaks version {state.v} of the protocol"
            self._emit(ev.BusTrouble(kind="foreign", detail=f"{text}, not {msg.PROTOCOL_VERSION}"))
            return
        self._learn_epoch(state.epoch)

    def _on_registration(self, registration: msg.Registration, now: int) -> None:  # noqa: ARG002
        """Its own retained registration came back: an older life's must not stand."""
        if registration.incarnation < self._incarnation:
            self._register()

    def _on_bus_up(self, up: BusUp, now: int) -> None:  # noqa: ARG002
        self._connection = up.connection
        self._register()
        self._say_all()

    def _on_bus_down(self, down: BusDown, now: int) -> None:
        """Nothing to do: what was not heard is said again when the connection is back."""

    def _on_wake(self, wake: Wake, now: int) -> None:  # noqa: ARG002
        self._timer_ns = NEVER
        while self._due.soonest_ns <= now:
            slot = self._due.pop()
            if slot is None:
                self._beat(now)
            elif not slot.dropped and slot.end is not None:
                self._repeat_end(slot, now)

    def _plan_beat(self, now: int) -> None:
        self.beats_ns = now + self._rules.heartbeat_ms * MS
        self._due.plan(self.beats_ns, None)

    def _beat(self, now: int) -> None:
        self._plan_beat(now)
        self._yields = 0
        self._start_waiting(now)
        if self._epoch:
            self._count_tokens(now)
            load = self._load()
            self._emit(ev.ReplicaLoad(replica=self._id, load=load))
            self._report(load)
        silent: dict[str, list[AttemptKey]] = {}
        for slot in self._all_attempts():
            if slot.live and now - slot.heard_ns >= KEEP_ALIVE_MS * MS // 2:
                slot.heard_ns = now
                silent.setdefault(slot.origin, []).append(slot.key)
            elif not slot.live and self._is_forgotten(slot, now):
                self._drop(slot)
        for origin, held in silent.items():
            self._keep_alive(origin, held)
        limit_ns = TOMBSTONE_S * 1000 * MS
        self._cancelled.expire(now - limit_ns)

    def _count_tokens(self, now: int) -> None:
        seconds = max(1, now - self._tokens_since_ns) / 1e9
        self._tokens_per_s = round(self._tokens / seconds, 1)
        self._tokens, self._tokens_since_ns = 0, now

    def _is_forgotten(self, slot: Slot, now: int) -> bool:
        ended = min(slot.ended_ns, now)
        # An origin settles where it knows that its request was: not where it bounced off.
        bounced = slot.attempt != msg.ENTRY_ATTEMPT and slot.said is None
        kept_ms = min(BOUNCED_MS, slot.request.lifetime_ms) if bounced else slot.request.lifetime_ms
        return now - ended > kept_ms * MS

    def _repeat_end(self, slot: Slot, now: int) -> None:
        """The origin has not settled it: say the end again, more and more rarely."""
        if slot.repeats >= MAX_REPEATS or slot.said is None:
            return
        slot.repeats += 1
        self._out.append(Send(Inbox.ORIGIN, slot.origin, slot.said.frame))
        self._due.plan(now + (FIRST_REPEAT_MS << slot.repeats) * MS, slot)
