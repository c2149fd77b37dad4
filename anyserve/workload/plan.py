"""The traffic plan: every request of a run, decided before the run begins.

A plan depends on the scenario and the seed only. What cannot be known before, when a user gets the
answer that the next request waits for, stands in it as `after`: see `course`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from anyserve.workload.drawing import Drawn, StreamDraws, StreamPlan
from anyserve.workload.schema import Phase
from anyserve.workload.traces import TraceRow, read_trace
from anyserve.workload.traffic import PlannedPhase, PlannedRequest, TrafficPlan

__all__ = ["StreamPlan", "make_plan", "plan_phases"]


def plan_phases(phases: Sequence[Phase], duration_ns: int | None) -> list[PlannedPhase]:
    """The phases one after the other, cut off or drawn out to last `duration_ns` in all."""
    planned: list[PlannedPhase] = []
    start_ns = 0
    for phase in phases:
        end_ns = start_ns + phase.duration
        planned.append(PlannedPhase(phase.name, start_ns, end_ns))
        start_ns = end_ns
    if duration_ns is None:
        return planned
    kept = [phase for phase in planned if phase.start_ns < duration_ns]
    last = msgspec.structs.replace(kept[-1], end_ns=duration_ns)
    return [*kept[:-1], last]


def make_plan(
    streams: Sequence[StreamPlan],
    phases: Sequence[Phase],
    *,
    seed: int,
    duration_ns: int | None = None,
    directory: Path | None = None,
) -> TrafficPlan:
    """Draw every request. Requests of one instant keep the order of the streams in the file.

    `directory`: where traces are looked for.

    Raises:
        UsageError: a trace cannot be read.
    """
    planned = plan_phases(phases, duration_ns)
    drawn = [
        (one.name, request)
        for one in streams
        for request in _draw_stream(one, planned, phases, seed, directory)
    ]
    drawn.sort(key=lambda named: named[1].request.at_ns)
    return TrafficPlan(seed, tuple(planned), tuple(_numbered(drawn)))


def _numbered(drawn: list[tuple[str, Drawn]]) -> Iterator[PlannedRequest]:
    numbers: dict[tuple[str, int], int] = {}
    for n, (stream, one) in enumerate(drawn):
        numbers[stream, one.key] = n
        after = None if one.after is None else numbers[stream, one.after]
        yield msgspec.structs.replace(one.request, n=n, after=after)


def _draw_stream(
    one: StreamPlan,
    planned: Sequence[PlannedPhase],
    phases: Sequence[Phase],
    seed: int,
    directory: Path | None,
) -> Iterator[Drawn]:
    draws = StreamDraws(one, planned, seed)
    trace = one.stream.trace
    if trace is None:
        return draws.draw(phases)
    return _from_rows(draws, planned, read_trace(trace, directory))


def _from_rows(
    draws: StreamDraws, planned: Sequence[PlannedPhase], rows: Iterator[TraceRow]
) -> Iterator[Drawn]:
    """Requests as a trace has them, up to the end of traffic."""
    phase = 0
    for key, row in enumerate(rows):
        while phase < len(planned) and row.at_ns >= planned[phase].end_ns:
            phase += 1
        if phase == len(planned):
            return
        segments = tuple(
            (draws.fresh() if name is None else draws.named(name), length)
            for name, length in row.segments
        )
        yield Drawn(
            draws.request(row.at_ns, phase, segments=segments, max_tokens=row.output_tokens), key
        )
