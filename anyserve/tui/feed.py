"""Where pictures come from: events of a source, folded as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from anyserve.core.events import Envelope
from anyserve.errors import AnyServeError
from anyserve.telemetry.advisor import Advice, advise
from anyserve.telemetry.judge import Judge, Judged
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.reducer_state import Memory
from anyserve.telemetry.run_plan import RunPlan
from anyserve.telemetry.source import EventSource, SourceKind
from anyserve.telemetry.views import Snapshot
from anyserve.tui.frame import Frame, rates_of

if TYPE_CHECKING:
    from anyserve.telemetry.trace_model import Trace

MEMORY = Memory(recent=2000, ledger=1000, shown_in_flight=2000)
"""What a screen keeps. It bounds the memory of an hour as of a day."""

_FOLDED_AT_ONCE = 2000
_SHARE_OF_TIME = 0.01


class Feed(Protocol):
    """Pictures of one source."""

    @property
    def kind(self) -> SourceKind:
        """What stands behind the events."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What the events do not say."""

    async def run(self) -> None:
        """Take in events until the source ends or `close`."""

    def frame(self) -> Frame:
        """The picture of now."""

    def trace(self, request: str) -> Trace:
        """A request's trace.

        Raises:
            AnyServeError: the request is not remembered.
        """

    def events_of(self, request: str) -> tuple[Envelope, ...]:
        """What was said of a request."""

    async def close(self) -> None:
        """End `run` and free the source."""


class Rarely:
    """Something dear, made again at most so often that it takes a hundredth of the time."""

    def __init__(self, clock: Callable[[], float], at_most_every_s: float) -> None:
        self._clock = clock
        self._least_s = at_most_every_s
        self._next_s = float("-inf")

    def due(self) -> bool:
        """Whether it is time again."""
        return self._clock() >= self._next_s

    def took(self, seconds: float) -> None:
        """It was made, and took so long."""
        self._next_s = self._clock() + max(self._least_s, seconds / _SHARE_OF_TIME)


class Commentary:
    """What is worked out of the picture on a slower beat: expectations and advice."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._judging = Rarely(clock, 1.0)
        self._advising = Rarely(clock, 1.0)
        self._judged: tuple[Judged, ...] = ()
        self._advice: tuple[Advice, ...] = ()

    def judged(self, judge: Callable[[], tuple[Judged, ...]]) -> tuple[Judged, ...]:
        """How the expectations stand."""
        if self._judging.due():
            begun = self._clock()
            self._judged = judge()
            self._judging.took(self._clock() - begun)
        return self._judged

    def advice(self, snapshot: Snapshot) -> tuple[Advice, ...]:
        """What the rules say."""
        if self._advising.due():
            begun = self._clock()
            self._advice = advise(snapshot)
            self._advising.took(self._clock() - begun)
        return self._advice

    def forget(self) -> None:
        """The picture jumped: work everything out anew."""
        self._judging, self._advising = Rarely(self._clock, 1.0), Rarely(self._clock, 1.0)


class LiveFeed:
    """Folds a source as it speaks. `clock` is a monotonic time in seconds."""

    def __init__(
        self,
        source: EventSource,
        plan: RunPlan,
        clock: Callable[[], float],
        memory: Memory = MEMORY,
    ) -> None:
        self._source = source
        self._plan = plan
        self._reducer = Reducer(memory)
        self._judge = Judge(plan.expectations, plan.slo)
        self._commentary = Commentary(clock)
        self._ended = False
        self._trouble = ""

    @property
    def kind(self) -> SourceKind:
        """See `Feed`."""
        return self._source.kind

    @property
    def facts(self) -> Mapping[str, str]:
        """See `Feed`."""
        return self._source.facts

    async def run(self) -> None:
        """See `Feed`. What goes wrong in the source is shown, and ends nothing but the events."""
        try:
            async for batch in self._source:
                await self._fold(batch)
        except AnyServeError as error:
            self._trouble = error.message
        finally:
            self._ended = True

    async def _fold(self, batch: Sequence[Envelope]) -> None:
        """A flood of events must not keep the keys waiting."""
        for start in range(0, len(batch), _FOLDED_AT_ONCE):
            part = batch[start : start + _FOLDED_AT_ONCE]
            self._reducer.apply_all(part)
            for envelope in part:
                self._judge.add(envelope)
            await asyncio.sleep(0)

    def frame(self) -> Frame:
        """See `Feed`."""
        snapshot = self._reducer.snapshot()
        return Frame(
            snapshot=snapshot,
            kind=self._source.kind,
            facts=self._source.facts,
            plan=self._plan,
            judged=self._commentary.judged(self._judge.judged),
            advice=self._commentary.advice(snapshot),
            ended=self._ended,
            trouble=self._trouble,
            rates=rates_of(snapshot),
        )

    def trace(self, request: str) -> Trace:
        """See `Feed`."""
        return self._reducer.trace(request)

    def events_of(self, request: str) -> tuple[Envelope, ...]:
        """See `Feed`."""
        return self._reducer.events_of(request)

    async def close(self) -> None:
        """See `Feed`."""
        await self._source.close()
