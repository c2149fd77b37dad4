"""Traces that a scheduler of engine steps is driven with, and what it decided.

A trace says which requests come and go before which step. The same trace is played on vLLM's own
scheduler (`vllm_scheduler.py`) and on ours (`play`); both leave one `Decision` per step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import Final

import msgspec

from anyserve.core.engine.async_batch import AsyncBatch
from anyserve.core.engine.batch import Batch
from anyserve.core.engine.keys import Segment, SegmentKeys
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.sequence import Sequence

IN_FLIGHT: Final = 2
"""Steps that vLLM's asynchronous loop has under way (`max_concurrent_batches`)."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request, and when it comes and goes."""

    before_step: int
    prompt: tuple[Segment, ...]
    max_tokens: int
    """0: an embedding."""
    priority: int = 0
    arrival: int = 0
    output: int = 0
    """Name of what it generates, where later prompts contain it; 0: nobody's."""
    shared: int = 0
    """How many of its segments others may have too."""
    abort_before: int = 0
    """Step before which it is given up; 0: never."""

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return sum(length for _, length in self.prompt)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Rules of the engine, and what is asked of it."""

    limits: EngineLimits
    max_model_len: int
    requests: tuple[Arrival, ...]

    def last_step(self) -> int:
        """The last step before which something comes or goes."""
        return max(max(one.before_step, one.abort_before) for one in self.requests)


class Decision(msgspec.Struct, frozen=True, array_like=True):
    """What one step did. Requests are numbered as in the trace."""

    work: dict[int, int]
    """Tokens by request."""
    preempted: list[int]
    free: int
    """Free blocks once the step was scheduled."""
    free_after: int
    """Free blocks once its output was processed."""
    running: int
    waiting: int


def random_trace(rng: random.Random, *, steps: int = 30) -> Trace:
    """A trace that fits into no more than a few hundred steps; small blocks, little memory."""
    block_size = rng.choice([2, 4, 4, 8, 16])
    embeds = rng.random() < 0.08
    max_model_len = rng.choice([32, 64, 128])
    seqs = rng.choice([1, 2, 4, 8, 16])
    budget = max(seqs, rng.choice([4, 8, 16, 32, 64, 200]))
    chunked = not embeds and rng.random() < 0.9
    if not chunked:
        budget = max(budget, max_model_len)
    threshold = rng.choice([0, 0, 0, 2, 5, 16]) if chunked else 0
    need = -(-max_model_len // block_size) + 1
    limits = EngineLimits(
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        kv_blocks=need + rng.choice([0, 1, 3, need, 4 * need]),
        block_size=block_size,
        priorities=rng.random() < 0.5,
        prefix_caching=not embeds and rng.random() < 0.75,
        chunked_prefill=chunked,
        long_prefill_token_threshold=threshold,
        long_prefill_adaptive=threshold > 0 and rng.random() < 0.3,
        reserve_full_sequence=rng.random() < 0.7,
        watermark=rng.choice([0.0, 0.0, 0.0, 0.05, 0.2]),
        async_scheduling=rng.random() < 0.35,
    )
    requests = _random_requests(rng, limits, max_model_len, steps, embeds=embeds)
    return Trace(limits=limits, max_model_len=max_model_len, requests=requests)


def _random_requests(
    rng: random.Random, limits: EngineLimits, max_model_len: int, steps: int, *, embeds: bool
) -> tuple[Arrival, ...]:
    texts = [rng.randint(1, max_model_len) for _ in range(rng.randint(1, 3))]
    conversations: list[Arrival] = []
    requests: list[Arrival] = []
    longest = max_model_len - (0 if embeds else 1)
    for number in range(rng.randint(1, 14)):
        before = rng.choice([0, rng.randint(0, steps)])
        private = 1000 + number
        prompt: list[Segment] = []
        shared = 0
        kind = rng.random()
        if kind < 0.5:
            text = rng.randrange(len(texts))
            prompt = [(text + 1, rng.choice([texts[text], rng.randint(1, texts[text])]))]
            shared = 1
        elif kind < 0.7 and conversations:
            before_it = rng.choice(conversations)
            known = rng.randint(1, max(1, before_it.max_tokens))
            prompt = [*before_it.prompt, (before_it.output, known)]
            shared = len(prompt)
        if not prompt or rng.random() < 0.7:
            prompt.append((private, rng.randint(1, max(1, longest // rng.choice([1, 2, 4])))))
        prompt = _cut(prompt, longest)
        one = Arrival(
            before_step=before,
            prompt=tuple(prompt),
            max_tokens=0 if embeds else rng.choice([1, rng.randint(1, 12), rng.randint(1, 60)]),
            priority=rng.choice([0, 0, 1, 2]),
            arrival=rng.choice([number, before, 0]),
            output=2000 + number if not embeds and rng.random() < 0.4 else 0,
            shared=min(shared, len(prompt)),
            abort_before=before + rng.randint(1, steps) if rng.random() < 0.15 else 0,
        )
        requests.append(one)
        if one.output:
            one = msgspec.structs.replace(one, shared=len(prompt))
            requests[-1] = one
            conversations.append(one)
    return tuple(requests)


def _cut(prompt: list[Segment], longest: int) -> list[Segment]:
    kept: list[Segment] = []
    for name, length in prompt:
        length = min(length, longest - sum(part for _, part in kept))  # noqa: PLW2901
        if length > 0:
            kept.append((name, length))
    return kept


def sequence_of(trace: Trace, number: int, keys: SegmentKeys) -> Sequence:
    """Our form of a request."""
    one = trace.requests[number]
    room = min(one.max_tokens, trace.max_model_len - one.length)
    segments = one.prompt[: one.shared]
    if one.output and one.shared == len(one.prompt):
        segments = (*segments, (one.output, room))
    return Sequence(
        owner=number,
        prompt=one.length,
        room=room,
        priority=one.priority,
        arrival=one.arrival,
        number=number,
        keys=keys.of(segments),
    )


class OurScheduler:
    """Plays a trace on our model of the scheduler, step by step or run by run."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._ahead = trace.limits.async_scheduling
        self._batch: Batch | AsyncBatch
        self._batch = AsyncBatch(trace.limits) if self._ahead else Batch(trace.limits)
        keys = SegmentKeys(trace.limits.block_size)
        self._sequences = [sequence_of(trace, n, keys) for n in range(len(trace.requests))]
        self._in_flight: list[StepPlan] = []
        self.prefix = (0, 0)

    def play(self, *, runs: bool, most: int = 2000) -> list[Decision]:
        """All decisions until nothing is left to do. `runs`: in as few calls as possible."""
        decisions: list[Decision] = []
        events = arrivals_by_step(self._trace)
        while len(decisions) < most:
            for number, comes in events.get(len(decisions), ()):
                if comes:
                    self._batch.add(self._sequences[number])
                else:
                    self._batch.abort(self._sequences[number])
            if not self._batch.running and not self._batch.waiting and not self._in_flight:
                if len(decisions) > self._trace.last_step():
                    break
                decisions.append(self._decision({}, [], self._batch.cache.free))
                continue
            if self._ahead:
                decisions.append(self._turn())
                continue
            until = min((at for at in events if at > len(decisions)), default=most)
            decisions += self._steps(self._batch.plan(until - len(decisions) if runs else 1))
        self.prefix = (self._batch.prefix_queries, self._batch.prefix_hits)
        return decisions

    def _steps(self, plan: StepPlan) -> list[Decision]:
        batch = self._batch
        work = self._work(plan)
        free = [batch.cache.free]
        if plan.packed:
            taken = plan.reserved
            free = [
                batch.cache.free + taken - batch.pack.blocks_for(step + 1)
                for step in range(plan.steps)
            ]
        preempted = sorted(sequence.owner for sequence in plan.preempted)
        before = [Decision(work, [], one, one, batch.running, batch.waiting) for one in free[:-1]]
        batch.commit(plan)
        return [*before, self._decision(work, preempted, free[-1])]

    def _turn(self) -> Decision:
        """Plan a step, and end the one before it, as vLLM's loop does with two in flight."""
        plan = self._batch.plan()
        work, free = self._work(plan), self._batch.cache.free
        if plan.empty:
            self._batch.commit(plan)
        else:
            self._in_flight.append(plan)
        if self._in_flight and (plan.empty or len(self._in_flight) == IN_FLIGHT):
            self._batch.commit(self._in_flight.pop(0))
        return self._decision(work, sorted(one.owner for one in plan.preempted), free)

    def _work(self, plan: StepPlan) -> dict[int, int]:
        work = {sequence.owner: tokens for sequence, tokens in plan.prefills}
        work |= dict.fromkeys((sequence.owner for sequence in plan.decodes), 1)
        if plan.packed:
            work |= dict.fromkeys((sequence.owner for sequence in self._batch.members()), 1)
        return work

    def _decision(self, work: dict[int, int], preempted: list[int], free: int) -> Decision:
        batch = self._batch
        return Decision(work, preempted, free, batch.cache.free, batch.running, batch.waiting)


def arrivals_by_step(trace: Trace) -> dict[int, list[tuple[int, bool]]]:
    """By step: who comes (True) or goes before it."""
    events: dict[int, list[tuple[int, bool]]] = {}
    for number, one in enumerate(trace.requests):
        events.setdefault(one.before_step, []).append((number, True))
    for number, one in enumerate(trace.requests):
        if one.abort_before:
            events.setdefault(one.abort_before, []).append((number, False))
    return events


def difference(trace: Trace, ours: Items[Decision], theirs: Items[Decision]) -> str:
    """The first step at which they differ, in words; empty if they do not."""
    for step, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        if our != their:
            return f"step {step}\n  ours   {our}\n  vLLM's {their}\n{describe(trace)}"
    if len(ours) != len(theirs):
        return f"{len(ours)} steps, vLLM {len(theirs)}\n{describe(trace)}"
    return ""


def describe(trace: Trace) -> str:
    """A trace, readable."""
    lines = [str(trace.limits), f"max_model_len={trace.max_model_len}"]
    lines += [f"  {number}: {one}" for number, one in enumerate(trace.requests)]
    return "\n".join(lines)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A trace and what vLLM did with it."""

    trace: Trace
    decisions: list[Decision]
    prefix: tuple[int, int]
    """Tokens that were looked up in the prefix cache, and that were found."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down for tests without vLLM."""

    vllm: str
    cases: list[Case]


def smaller_traces(trace: Trace) -> Iterator[Trace]:
    """Traces with a little less in them, the most first."""
    requests = trace.requests
    for number in range(len(requests)):
        if len(requests) > 1:
            yield _with(trace, (*requests[:number], *requests[number + 1 :]))
    for number, one in enumerate(requests):
        for changed in _smaller_requests(one):
            yield _with(trace, (*requests[:number], changed, *requests[number + 1 :]))


def _smaller_requests(one: Arrival) -> Iterator[Arrival]:
    replace = msgspec.structs.replace
    if one.abort_before:
        yield replace(one, abort_before=0)
    if one.before_step:
        yield replace(one, before_step=one.before_step - 1)
    if one.max_tokens > 1:
        yield replace(one, max_tokens=one.max_tokens // 2)
        yield replace(one, max_tokens=one.max_tokens - 1)
    for place, (name, length) in enumerate(one.prompt):
        if length > 1:
            shorter = ((name, length - 1),)
            yield replace(one, prompt=(*one.prompt[:place], *shorter, *one.prompt[place + 1 :]))


def _with(trace: Trace, requests: tuple[Arrival, ...]) -> Trace:
    return msgspec.structs.replace(trace, requests=requests)
