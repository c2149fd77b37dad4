"""Pictures of a recorded run: play, pause, step and jump, forwards and backwards."""

from __future__ import annotations

import asyncio
import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from anyserve.core.events import Envelope
from anyserve.telemetry.judge import Judge, Judged
from anyserve.telemetry.recording import Recording
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.reducer_state import Memory
from anyserve.telemetry.run_plan import RunPlan
from anyserve.telemetry.source import SourceKind
from anyserve.tui.feed import Commentary
from anyserve.tui.frame import Frame, Player, rates_of

if TYPE_CHECKING:
    from anyserve.telemetry.trace_model import Trace

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
CHECKPOINT_EVENTS = 20_000
MOST_CHECKPOINTS = 32
MEMORY = Memory(recent=5000, ledger=2000, shown_in_flight=2000)


class Rewind:
    """Folds of a recording up to any place; going back costs one checkpoint and a short fold."""

    def __init__(
        self,
        recording: Recording,
        memory: Memory = MEMORY,
        *,
        every: int = CHECKPOINT_EVENTS,
        most: int = MOST_CHECKPOINTS,
    ) -> None:
        self._recording = recording
        self._memory = memory
        self._every = max(every, len(recording.envelopes) // most + 1)
        self._saved: dict[int, Reducer] = {}
        self.reducer = Reducer(memory)
        self.index = 0
        """How many envelopes are folded in."""

    def go(self, index: int) -> None:
        """Fold so that the first `index` envelopes count, and no other."""
        if index < self.index:
            self._restore(index)
        envelopes = self._recording.envelopes
        while self.index < index:
            stop = min(index, (self.index // self._every + 1) * self._every)
            for place in range(self.index, stop):
                self.reducer.apply(envelopes[place])
            self.index = stop
            if stop % self._every == 0 and stop not in self._saved:
                self._saved[stop] = self._copy(self.reducer)

    def _restore(self, index: int) -> None:
        places = sorted(self._saved)
        at = bisect_right(places, index) - 1
        if at < 0:
            self.reducer, self.index = Reducer(self._memory), 0
            return
        self.reducer, self.index = self._copy(self._saved[places[at]]), places[at]

    @staticmethod
    def _copy(reducer: Reducer) -> Reducer:
        """A reducer of its own; what never changes is in both."""
        shared: dict[int, object] = {id(one): one for one in _unchanging(reducer)}
        return copy.deepcopy(reducer, shared)


def _unchanging(reducer: Reducer) -> Iterator[object]:
    """Envelopes and frozen views: most of what a reducer holds."""
    for requests in (reducer.requests, reducer.settled, reducer.unoffered):
        for request in requests.values():
            yield from request.events
    for replica in reducer.replicas.values():
        yield from replica.history
        yield from replica.trend.view()
    yield from reducer.notices


class ReplayFeed:
    """A recorded run that can be played. `clock` is a monotonic time in seconds."""

    def __init__(
        self,
        recording: Recording,
        plan: RunPlan,
        facts: Mapping[str, str],
        clock: Callable[[], float],
        *,
        speed: float = 1.0,
        at_s: float = 0.0,
        playing: bool = True,
    ) -> None:
        self.kind = SourceKind.REPLAY
        self.facts = facts
        self._recording = recording
        self._plan = plan
        self._clock = clock
        self._rewind = Rewind(recording)
        self._judge = Judge(plan.expectations, plan.slo)
        self._judge_index = 0
        self._commentary = Commentary(clock)
        self._speed = speed
        self._playing = playing
        self._at_s = 0.0
        self._seen_s = clock()
        self._closed = asyncio.Event()
        self.seek(at_s)

    async def run(self) -> None:
        """See `Feed`. Time moves when a picture is taken; there is nothing to wait for."""
        await self._closed.wait()

    async def close(self) -> None:
        """See `Feed`."""
        self._closed.set()

    # --- where it stands -----------------------------------------------------------------------

    @property
    def player(self) -> Player:
        """Where the replay stands."""
        recording = self._recording
        return Player(self._playing, self._speed, self._at_s, recording.start_s, recording.end_s)

    def toggle(self) -> None:
        """Play, or pause; at the end play again from the start."""
        self._advance()
        if not self._playing and self._at_s >= self._recording.end_s:
            self.seek(0.0)
        self._playing = not self._playing

    def seek(self, at_s: float) -> None:
        """Stand at a time; beyond the ends at the end."""
        self._advance()
        self._stand(min(max(at_s, self._recording.start_s), self._recording.end_s))
        self._commentary.forget()

    def jump(self, by_s: float) -> None:
        """So many seconds on, or back."""
        self._advance()
        self.seek(self._at_s + by_s)

    def step(self, events: int) -> None:
        """So many events on, or back, and pause there."""
        self._advance()
        self._playing = False
        self._stand_behind(self._rewind.index + events - 1)

    def next_mark(self) -> bool:
        """To the next notable event, and pause there; False where there is none."""
        self._advance()
        place = self._recording.mark_after(self._rewind.index)
        if place is None:
            return False
        self._playing = False
        self._stand_behind(place)
        return True

    def phase(self, direction: int) -> bool:
        """To the beginning of the next phase, or of the one before; False where there is none."""
        self._advance()
        recording = self._recording
        if direction > 0:
            place = recording.phase_after(self._rewind.index)
        else:
            begun = recording.phase_before(self._rewind.index)
            place = begun
            if begun is not None and self._at_s - recording.seconds(recording.times_ns[begun]) < 1:
                earlier = recording.phase_before(begun)
                place = begun if earlier is None else earlier
        if place is None:
            return False
        self._stand_behind(place)
        return True

    def set_speed(self, speed: float) -> None:
        """Play at a multiple of the pace the run had."""
        self._advance()
        self._speed = speed

    def shift_speed(self, steps: int, *, around: bool = False) -> float:
        """The next speed of `SPEEDS`; behind the last comes the first where it goes `around`."""
        place = min(range(len(SPEEDS)), key=lambda index: abs(SPEEDS[index] - self._speed))
        place += steps
        place = place % len(SPEEDS) if around else min(max(place, 0), len(SPEEDS) - 1)
        self.set_speed(SPEEDS[place])
        return self._speed

    def _advance(self) -> None:
        """Let the time that went by since the last look pass in the run as well."""
        now = self._clock()
        passed, self._seen_s = now - self._seen_s, now
        if self._playing:
            end = self._recording.end_s
            self._stand(min(self._at_s + passed * self._speed, end))
            self._playing = self._at_s < end

    def _stand(self, at_s: float) -> None:
        self._at_s = at_s
        self._rewind.go(self._recording.index_at(at_s))

    def _stand_behind(self, place: int) -> None:
        """Fold up to and with the envelope at `place`, and no further, whatever has its time."""
        times = self._recording.times_ns
        if not times:
            return
        place = min(max(place, 0), len(times) - 1)
        self._at_s = self._recording.seconds(times[place])
        self._rewind.go(place + 1)
        self._commentary.forget()

    # --- pictures ------------------------------------------------------------------------------

    def frame(self) -> Frame:
        """See `Feed`."""
        self._advance()
        snapshot = self._rewind.reducer.snapshot()
        return Frame(
            snapshot=snapshot,
            kind=self.kind,
            facts=self.facts,
            plan=self._plan,
            judged=self._commentary.judged(self._judged),
            advice=self._commentary.advice(snapshot),
            player=self.player,
            ended=self._at_s >= self._recording.end_s,
            rates=rates_of(snapshot),
        )

    def _judged(self) -> tuple[Judged, ...]:
        """The expectations as they stood here; going back counts from the beginning again."""
        if self._rewind.index < self._judge_index:
            self._judge = Judge(self._plan.expectations, self._plan.slo)
            self._judge_index = 0
        envelopes = self._recording.envelopes
        for place in range(self._judge_index, self._rewind.index):
            if self._judge.overrun:
                break
            self._judge.add(envelopes[place])
        self._judge_index = self._rewind.index
        return self._judge.judged()

    def trace(self, request: str) -> Trace:
        """See `Feed`. It tells what was known where the replay stands."""
        return self._rewind.reducer.trace(request)

    def events_of(self, request: str) -> tuple[Envelope, ...]:
        """See `Feed`."""
        return self._rewind.reducer.events_of(request)
