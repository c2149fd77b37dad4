"""Drawing the requests of one stream, whatever way they come: at a rate, in sessions, from users
who wait for their answers.

Each stream has random sources of its own for times, lengths, prefixes and entries: changing one
stream, or its rate, leaves the draws of all others as they were.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import count, repeat, starmap
from typing import Final

from anyserve.workload.arrivals import (
    NS_PER_S,
    RateStep,
    bursty_arrivals,
    constant_arrivals,
    exact_rate,
    gamma_arrivals,
    poisson_arrivals,
)
from anyserve.workload.lengths import draw_lengths
from anyserve.workload.schema import Phase, Prefix, Stream
from anyserve.workload.stream_plan import StreamPlan
from anyserve.workload.traffic import PlannedPhase, PlannedRequest, Segment

NS_PER_MS: Final = 1_000_000
USER_PER_S: Final = 10
"""Requests per second and closed-loop user that are drawn where the file gives no number."""
_HASH_MASK: Final = (1 << 63) - 1
_ODD: Final = 0x1E3779B97F4A7C15
"""Odd, so that multiples of it stay distinct modulo a power of two."""


def source(seed: int, *purpose: str) -> random.Random:
    """The random source for one purpose; independent of every other, and of the hash seed."""
    return random.Random(stable_hash(seed, *purpose))  # noqa: S311 - not for secrets


def stable_hash(seed: int, *words: str) -> int:
    """63 bits that depend on these alone."""
    text = "\x1f".join((str(seed), *words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) & _HASH_MASK


class StreamDraws:
    """The random sources of one stream, and what all its requests have in common.

    Requests come in order of time. Their numbers, and those of the requests that they follow, count
    within the stream.
    """

    def __init__(self, one: StreamPlan, planned: Sequence[PlannedPhase], seed: int) -> None:
        name, stream = one.name, one.stream
        self.stream = stream
        self.name = name
        self._planned = planned
        self._seed = seed
        self._prompts = draw_lengths(stream.prompt_tokens, source(seed, name, "prompt"))
        self._outputs = draw_lengths(stream.output_tokens, source(seed, name, "output"))
        self._texts = _Prompts(name, stream.prefix, seed)
        self._entries = _choices(one.entries, source(seed, name, "entry"))
        self._numbers = count()
        self._phases = [phase.name for phase in planned]
        deadline = stream.deadline
        generates = one.task == "generate"
        self._common = (
            one.task,
            stream.attributes,
            stream.priority,
            None if deadline is None else max(1, deadline // NS_PER_MS),
            stream.sampling.model_dump(exclude_none=True) if generates else {},
            stream.payload,
        )

    def request(
        self,
        at_ns: int,
        phase: int,
        *,
        segments: tuple[Segment, ...] | None = None,
        max_tokens: int | None = None,
        follows: tuple[int | None, int, int] = (None, 0, 0),
    ) -> PlannedRequest:
        """The next one; its lengths and text are drawn unless given.

        `follows`: `after`, `think_ns` and `answer` of the request.
        """
        if segments is None:
            length = next(self._prompts)
            segments = self._texts.segments(length) if length else ()
        return PlannedRequest(
            next(self._numbers),
            at_ns,
            self.name,
            self._phases[phase],
            self.stream.capability,
            segments,
            next(self._outputs) if max_tokens is None else max_tokens,
            next(self._entries),
            *self._common,
            *follows,
        )

    def fresh(self) -> int:
        """The name of a text that nothing else holds."""
        return self._texts.fresh()

    def named(self, word: str) -> int:
        """The name of a text of this stream that is the same whenever it is asked for."""
        return stable_hash(self._seed, self.name, "text", word)

    def draw(self, phases: Sequence[Phase]) -> Iterator[PlannedRequest]:
        """All requests of a stream that is no trace."""
        if self.stream.concurrency is not None:
            return self._closed_loop(self.stream.concurrency)
        times = self._times(phases)
        if self.stream.sessions is not None:
            return self._sessions(times)
        return starmap(self.request, times)

    def _times(self, phases: Sequence[Phase]) -> Iterator[tuple[int, int]]:
        stream = self.stream
        steps = rate_steps(self.name, stream, self._planned, phases)
        rng = source(self._seed, self.name, "arrivals")
        if stream.arrivals == "poisson":
            return poisson_arrivals(steps, rng)
        if stream.arrivals == "gamma":
            return gamma_arrivals(steps, rng, stream.cv)
        if stream.arrivals == "bursty" and stream.burst is not None:
            return bursty_arrivals(steps, rng, stream.burst.on, stream.burst.off)
        return constant_arrivals(steps)

    def _sessions(self, times: Iterator[tuple[int, int]]) -> Iterator[PlannedRequest]:
        """Each turn's prompt is all that was said before, and something new."""
        sessions = self.stream.sessions
        assert sessions is not None
        for at_ns, phase in times:
            said: tuple[Segment, ...] = ()
            before: int | None = None
            for turn in range(sessions.turns):
                new = self._texts.segments(next(self._prompts))
                said += new if not turn else (new[-1],)
                last = turn == sessions.turns - 1
                answer = 0 if last else self.fresh()
                think_ns = sessions.think if turn else 0
                request = self.request(
                    at_ns, phase, segments=said, follows=(before, think_ns, answer)
                )
                yield request
                before = request.n
                said += ((answer, request.max_tokens),)

    def _closed_loop(self, users: int) -> Iterator[PlannedRequest]:
        """Requests of all users in turn, each after the one that this user sent before."""
        duration_s = -(-self._planned[-1].end_ns // NS_PER_S)
        most = self.stream.requests or users * max(1, duration_s * USER_PER_S)
        for key in range(most):
            first = key < users
            think_ns = 0 if first else self.stream.think
            before = None if first else key - users
            yield self.request(0, 0, follows=(before, think_ns, 0))


def rate_steps(
    name: str, stream: Stream, planned: Sequence[PlannedPhase], phases: Sequence[Phase]
) -> list[RateStep]:
    """The stream's rate over time."""
    steps = []
    for index, (times, phase) in enumerate(zip(planned, phases, strict=False)):
        own = phase.rates.get(name)
        usual = exact_rate(stream.rate or 0.0) * exact_rate(phase.scale)
        rate = usual if own is None else exact_rate(own)
        steps.append(RateStep(times.start_ns, times.end_ns, rate, index))
    return steps


def _choices(entries: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    if len(entries) == 1:
        return repeat(entries[0])
    return _drawn(entries, rng)


def _drawn(entries: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    while True:
        yield entries[int(rng.random() * len(entries))]


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
            return ((self.fresh(), length),)
        shared = self._prefixes[self._rng.randrange(len(self._prefixes))]
        own = length - self._shared
        if own <= 0:
            return ((shared, length),)
        return ((shared, self._shared), (self.fresh(), own))

    def fresh(self) -> int:
        self._next = (self._next + _ODD) & _HASH_MASK
        return self._next
