"""An engine without a model: it waits as long as the step-time model says, step by step.

Batching, chunked prefill, KV memory and preemption are those of `core/engine`, which the simulator
drives in virtual time. The text is the prompt again, so it reads as words.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from anyserve.core.engine.batch import BatchLimits, BatchScheduler, StepPlan
from anyserve.core.engine.profiles import EngineProfile, profile_for
from anyserve.core.engine.sequence import Sequence
from anyserve.errors import StartError
from anyserve.runtime.engines.base import (
    Delta,
    EngineConfig,
    EngineInfo,
    EngineKind,
    EngineRequest,
    EngineStats,
    FinishReason,
    Report,
    StepOutput,
    Task,
    check_request,
    room_left,
    spent,
)
from anyserve.runtime.engines.deterministic import bag_vector, echoed

_BATCHED_TOKENS = 256  # as the CPU build of vLLM is run here
_DEFAULT_CONTEXT = 2048
_NS_PER_S = 1e9


@dataclass(slots=True, eq=False)
class _Held:
    """A request, and one sequence per choice."""

    request: EngineRequest
    choices: dict[Sequence, int] = field(default_factory=dict)
    scheduled_ns: int = 0
    told: bool = False
    """Whether a delta has carried `scheduled_ns`."""


class ModelEngine:
    """An `Engine` that takes the time of a real one and computes nothing."""

    def __init__(
        self,
        config: EngineConfig,
        sleep: Callable[[float], None] = time.sleep,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._config = config
        self._sleep = sleep
        self._clock_ns = clock_ns
        embeds = config.task is Task.EMBED
        self._profile = config.profile or profile_for(config.name, embeds=embeds)
        self._context = config.max_model_len or min(self._profile.context, _DEFAULT_CONTEXT)
        self._limits = _limits(config, self._profile, self._context)
        self._batch = BatchScheduler(self._limits)
        self._held: dict[str, _Held] = {}
        self._of_sequence: dict[Sequence, _Held] = {}
        self._ready: list[Delta] = []
        self._numbers = itertools.count()

    def start(self, report: Report) -> EngineInfo:
        """Check that the context fits into the imaginary KV cache; load nothing.

        Raises:
            StartError: One request of full length would not fit.
        """
        kv_tokens = max(0, self._limits.kv_blocks - 1) * self._limits.block_size
        if self._limits.kv_blocks and kv_tokens < self._context:
            raise StartError(
                f"A KV cache of {self._config.kv_cache_gib} GiB holds {kv_tokens} tokens, the "
                f"context has {self._context}.",
                code="kv_too_small",
                hint="Raise kv_cache_gib or lower max_model_len.",
            )
        report("ready", 1.0)
        return EngineInfo(
            kind=EngineKind.MODEL,
            max_model_len=self._context,
            max_num_seqs=self._limits.max_num_seqs,
            max_num_batched_tokens=self._limits.max_num_batched_tokens,
            kv_tokens=kv_tokens,
            block_size=self._limits.block_size,
            device=f"model of {self._profile.name}",
        )

    def submit(self, request: EngineRequest) -> None:
        """Let the request's sequences wait for a place in the batch."""
        check_request(request, self._config.task, self._context)
        embeds = request.task is Task.EMBED
        room = 0 if embeds else room_left(request, self._context)
        if room == 0 and not embeds:
            self._ready.append(spent(request))
            return
        held = self._held[request.key] = _Held(request)
        for choice in range(1 if embeds else request.sampling.n):
            number = next(self._numbers)
            sequence = Sequence(
                prompt=len(request.prompt_ids) + len(request.resume_ids),
                room=room,
                priority=request.priority,
                arrival=int((request.arrival_s or 0.0) * _NS_PER_S),
                number=number,
            )
            held.choices[sequence] = choice
            self._of_sequence[sequence] = held
            self._batch.add(sequence)

    def cancel(self, key: str) -> None:
        """Forget a request."""
        self._ready = [delta for delta in self._ready if delta.key != key]
        held = self._held.pop(key, None)
        for sequence in held.choices if held is not None else ():
            self._batch.remove(sequence)
            del self._of_sequence[sequence]

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._held or self._ready)

    def step(self) -> StepOutput:
        """Choose a step, wait for as long as it would take, give its tokens out."""
        deltas, self._ready = self._ready, []
        if self._held:
            started_ns = self._clock_ns()
            plan = self._batch.schedule()
            self._mark_admitted(plan, started_ns)
            ends_ns = started_ns + self._profile.step_time.step_ns(plan.work.values())
            self._sleep(max(0, ends_ns - self._clock_ns()) / _NS_PER_S)
            deltas += [self._delta(sequence) for sequence in self._batch.commit(plan)]
        return StepOutput(deltas, self.stats())

    def stats(self) -> EngineStats:
        """State of the batch."""
        return EngineStats(
            running=self._batch.running,
            waiting=self._batch.waiting,
            kv_usage=self._batch.kv_usage,
            preemptions=self._batch.preemptions,
        )

    def stop(self) -> None:
        """Forget everything."""
        for key in list(self._held):
            self.cancel(key)

    def _mark_admitted(self, plan: StepPlan, now_ns: int) -> None:
        for sequence in plan.admitted:
            held = self._of_sequence[sequence]
            held.scheduled_ns = held.scheduled_ns or now_ns

    def _delta(self, sequence: Sequence) -> Delta:
        held = self._of_sequence[sequence]
        request = held.request
        choice = held.choices[sequence]
        delta = Delta(key=request.key, choice=choice)
        if not held.told:
            held.told = True
            delta.scheduled_ns = held.scheduled_ns
        if request.task is Task.EMBED:
            delta.embedding = bag_vector(request.prompt_ids)
            delta.finish = FinishReason.STOP
        else:
            delta.first_index = len(request.resume_ids) + sequence.generated - 1
            delta.token_ids = echoed(request.prompt_ids, delta.first_index, 1, choice)
            if sequence.generated >= sequence.room:
                delta.finish = FinishReason.LENGTH
        if delta.finish is not None:
            self._end(held, sequence, delta)
        return delta

    def _end(self, held: _Held, sequence: Sequence, delta: Delta) -> None:
        del held.choices[sequence]
        del self._of_sequence[sequence]
        if not held.choices:
            delta.done = True
            del self._held[held.request.key]


def _limits(config: EngineConfig, profile: EngineProfile, context: int) -> BatchLimits:
    embeds = config.task is Task.EMBED
    tokens = config.max_num_batched_tokens or _BATCHED_TOKENS
    return BatchLimits(
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=max(tokens, context) if embeds else tokens,
        kv_blocks=0 if embeds else profile.kv_blocks(config.kv_cache_gib),
        block_size=profile.block_size,
        chunked_prefill=not embeds,
    )
