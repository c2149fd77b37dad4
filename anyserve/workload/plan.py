"""The traffic plan: every request of a run, decided before the run begins.

A plan depends on the scenario and the seed only. What cannot be known before, when a user gets the
answer that the next request waits for, stands in it as `after`: see `course`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import msgspec
from msgspec.structs import force_setattr

from anyserve.workload.drawing import StreamDraws
from anyserve.workload.schema import Phase
from anyserve.workload.stream_plan import StreamPlan
from anyserve.workload.traces import TraceRow, read_trace
from anyserve.workload.traffic import PlannedPhase, PlannedRequest, TrafficPlan


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
    requests: list[PlannedRequest] = []
    for one in streams:
        requests.extend(_draw_stream(one, planned, phases, seed, directory))
    if len(streams) > 1:
        requests.sort(key=attrgetter("at_ns"))
        _number(requests)
    return TrafficPlan(seed, tuple(planned), tuple(requests))


def _number(requests: Sequence[PlannedRequest]) -> None:
    """Number the requests of several streams as they stand, in place: they are many, and nobody
    else has them yet."""
    numbers: dict[str, array[int]] = {}
    for n, request in enumerate(requests):
        own = numbers.get(request.stream)
        if own is None:
            own = numbers[request.stream] = array("q")
        own.append(n)
        if request.after is not None:
            force_setattr(request, "after", own[request.after])
        force_setattr(request, "n", n)


def _draw_stream(
    one: StreamPlan,
    planned: Sequence[PlannedPhase],
    phases: Sequence[Phase],
    seed: int,
    directory: Path | None,
) -> Iterator[PlannedRequest]:
    draws = StreamDraws(one, planned, seed)
    trace = one.stream.trace
    if trace is None:
        return draws.draw(phases)
    return _from_rows(draws, planned, read_trace(trace, directory))


def _from_rows(
    draws: StreamDraws, planned: Sequence[PlannedPhase], rows: Iterator[TraceRow]
) -> Iterator[PlannedRequest]:
    """Requests as a trace has them, up to the end of traffic."""
    phase = 0
    for row in rows:
        while phase < len(planned) and row.at_ns >= planned[phase].end_ns:
            phase += 1
        if phase == len(planned):
            return
        segments = tuple(
            (draws.fresh() if name is None else draws.named(name), length)
            for name, length in row.segments
        )
        yield draws.request(row.at_ns, phase, segments=segments, max_tokens=row.output_tokens)
