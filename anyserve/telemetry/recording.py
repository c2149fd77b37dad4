"""A recorded run on a time axis: where one can stand, and what is worth jumping to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from anyserve.core.events import (
    Envelope,
    FaultInjected,
    PhaseStarted,
    RequestDelegated,
    RequestReentered,
    RunEnded,
    RunStarted,
)
from anyserve.telemetry.notices import notice
from anyserve.telemetry.views import Level


@dataclass(frozen=True, slots=True)
class Recording:
    """Envelopes in order, and for each its time in nanoseconds on the clock of the run.

    `times_ns` never falls: what was said on another boot stands at the time before it. `zero_ns` is
    where the traffic began. `marks` are indexes of what is notable: warnings, errors, delegations,
    faults; `phases` those of `phase.started`.
    """

    envelopes: Sequence[Envelope]
    times_ns: Sequence[int]
    zero_ns: int
    marks: Sequence[int]
    phases: Sequence[int]

    @property
    def start_s(self) -> float:
        """The first event, in seconds from the start of the traffic (below 0: before it)."""
        return self.seconds(self.times_ns[0]) if self.times_ns else 0.0

    @property
    def end_s(self) -> float:
        """The last event."""
        return self.seconds(self.times_ns[-1]) if self.times_ns else 0.0

    def seconds(self, at_ns: int) -> float:
        """A time of the run's clock in seconds from the start of the traffic."""
        return (at_ns - self.zero_ns) / 1e9

    def index_at(self, at_s: float) -> int:
        """How many envelopes were said up to this time."""
        return bisect_right(self.times_ns, self.zero_ns + round(at_s * 1e9))

    def mark_after(self, index: int) -> int | None:
        """The next notable event at or after `index`."""
        return _at_or_after(self.marks, index)

    def phase_after(self, index: int) -> int | None:
        """The next beginning of a phase at or after `index`."""
        return _at_or_after(self.phases, index)

    def phase_before(self, index: int) -> int | None:
        """The last beginning of a phase before `index`."""
        place = bisect_left(self.phases, index) - 1
        return self.phases[place] if place >= 0 else None


def record(envelopes: Sequence[Envelope]) -> Recording:
    """A recording of merged envelopes."""
    boot = _boot_of_run(envelopes)
    times: list[int] = []
    marks: list[int] = []
    phases: list[int] = []
    zero_ns: int | None = None
    now = next((one.t for one in envelopes if one.boot == boot), 0)
    for index, envelope in enumerate(envelopes):
        if envelope.boot == boot:
            now = max(now, envelope.t)
        times.append(now)
        if isinstance(envelope.event, RunStarted):
            zero_ns = now
        elif isinstance(envelope.event, PhaseStarted):
            phases.append(index)
        if _is_notable(envelope):
            marks.append(index)
    first = times[0] if times else 0
    return Recording(envelopes, times, first if zero_ns is None else zero_ns, marks, phases)


def _boot_of_run(envelopes: Sequence[Envelope]) -> str:
    for envelope in envelopes:
        if isinstance(envelope.event, RunStarted):
            return envelope.boot
    return envelopes[0].boot if envelopes else ""


def _is_notable(envelope: Envelope) -> bool:
    event = envelope.event
    if isinstance(
        event, (RequestDelegated, RequestReentered, FaultInjected, PhaseStarted, RunEnded)
    ):
        return True
    said = notice(event)
    return said is not None and said[0] is not Level.INFO


def _at_or_after(places: Sequence[int], index: int) -> int | None:
    place = bisect_left(places, index)
    return places[place] if place < len(places) else None
