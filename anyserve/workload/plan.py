"""The traffic plan: every request of a run, decided before the run begins.

A plan depends on the scenario and the seed only. Each stream has random sources of its own for
times, lengths, prefixes and entries: changing one stream, or its rate, leaves the draws of all
others as they were.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from anyserve.workload.arrivals import (
    RateStep,
    constant_arrivals,
    exact_rate,
    poisson_arrivals,
)
from anyserve.workload.facts import Task
from anyserve.workload.lengths import draw_lengths
from anyserve.workload.schema import Phase, Prefix, Stream
from anyserve.workload.traffic import (
    PlannedPhase,
    PlannedRequest,
    Segment,
    TrafficPlan,
)

NS_PER_MS: Final = 1_000_000
_HASH_MASK: Final = (1 << 63) - 1
_ODD: Final = 0x1E3779B97F4A7C15
"""Odd, so that multiples of it stay distinct modulo a power of two."""


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stream before its requests are drawn. `entries`: one is taken at random
    for each request."""

    name: str
    stream: Stream
    task: Task
    entries: tuple[str, ...]


def source(seed: int, *purpose: str) -> random.Random:
    """The random source for one purpose; independent of every other, and of the hash seed."""
    return random.Random(stable_hash(seed, *purpose))  # noqa: S311 - not for secrets


def stable_hash(seed: int, *words: str) -> int:
    """63 bits that depend on these alone."""
    text = "\x1f".join((str(seed), *words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) & _HASH_MASK


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
) -> TrafficPlan:
    """Draw every request. Requests of one instant keep the order of the streams in the file."""
    planned = plan_phases(phases, duration_ns)
    drawn = [fields for one in streams for fields in _draw_stream(one, planned, phases, seed)]
    drawn.sort(key=itemgetter(0))
    requests = tuple(PlannedRequest(n, *fields) for n, fields in enumerate(drawn))
    return TrafficPlan(seed, tuple(planned), requests)


def rate_steps(
    name: str, stream: Stream, planned: Sequence[PlannedPhase], phases: Sequence[Phase]
) -> list[RateStep]:
    """The stream's rate over time."""
    steps = []
    for index, (times, phase) in enumerate(zip(planned, phases, strict=False)):
        own = phase.rates.get(name)
        rate = exact_rate(stream.rate) * exact_rate(phase.scale) if own is None else exact_rate(own)
        steps.append(RateStep(times.start_ns, times.end_ns, rate, index))
    return steps


def _draw_stream(
    one: StreamPlan, planned: Sequence[PlannedPhase], phases: Sequence[Phase], seed: int
) -> Iterator[tuple[Any, ...]]:
    """The fields of each request from `at_ns` on; its number is known once all are sorted."""
    name, stream = one.name, one.stream
    steps = rate_steps(name, stream, planned, phases)
    times = (
        poisson_arrivals(steps, source(seed, name, "arrivals"))
        if stream.arrivals == "poisson"
        else constant_arrivals(steps)
    )
    prompts = draw_lengths(stream.prompt_tokens, source(seed, name, "prompt"))
    outputs = draw_lengths(stream.output_tokens, source(seed, name, "output"))
    make_segments = _Prompts(name, stream.prefix, seed).segments
    entries = _choices(one.entries, source(seed, name, "entry"))
    deadline_ms = None if stream.deadline is None else max(1, stream.deadline // NS_PER_MS)
    sampling = stream.sampling.model_dump(exclude_none=True) if one.task == "generate" else {}
    for (at_ns, phase), prompt, output, entry in zip(
        times, prompts, outputs, entries, strict=False
    ):
        yield (
            at_ns,
            name,
            planned[phase].name,
            stream.capability,
            make_segments(prompt) if prompt else (),
            output,
            entry,
            one.task,
            stream.attributes,
            stream.priority,
            deadline_ms,
            sampling,
            stream.payload,
        )


def _choices(entries: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    while True:
        yield entries[0] if len(entries) == 1 else entries[int(rng.random() * len(entries))]


class _Prompts:
    """Makes the segments of one stream's prompts, one after the other."""

    def __init__(self, name: str, prefix: Prefix | None, seed: int) -> None:
        self._next = stable_hash(seed, name, "segment")
        self._shared = prefix.tokens if prefix else 0
        groups = prefix.groups if prefix else 0
        self._prefixes = [stable_hash(seed, name, "prefix", str(n)) for n in range(groups)]
        self._rng = source(seed, name, "prefix")

    def segments(self, length: int) -> tuple[Segment, ...]:
        """A shared beginning where the stream has one, and a part that no other prompt has."""
        if not self._prefixes:
            return ((self._fresh(), length),)
        shared = self._prefixes[self._rng.randrange(len(self._prefixes))]
        own = length - self._shared
        if own <= 0:
            return ((shared, length),)
        return ((shared, self._shared), (self._fresh(), own))

    def _fresh(self) -> int:
        self._next = (self._next + _ODD) & _HASH_MASK
        return self._next
