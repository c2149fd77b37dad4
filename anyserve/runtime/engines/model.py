"""An engine without a model: it waits as long as the step-time model says, step by step.

Batching, chunked prefill, KV memory and preemption are those of `core/engine`, which the simulator
drives in virtual time. The text is the prompt again, so it reads as words.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from anyserve.core.engine.keys import token_keys
from anyserve.core.engine.model import EngineModel
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.sizing import engine_sizes
from anyserve.core.engine.step_time import StepTime, scaled_step_time
from anyserve.core.engine.stretch import PS_PER_NS, to_ns
from anyserve.core.spec import EngineSpec
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
from anyserve.workload.profiles import known_profile, users_step_time

_NS_PER_S = 1e9


@dataclass(slots=True, eq=False)
class _Held:
    """A request, and one sequence per choice."""

    request: EngineRequest
    choices: dict[Sequence, int] = field(default_factory=dict)
    scheduled_ns: int = 0
    cached: int = 0
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
        spec = _spec(config)
        self._profile = config.profile or known_profile(spec)[0]
        self._sizes = engine_sizes(spec, self._profile)
        self._engine = EngineModel(
            self._sizes.limits,
            self._step_time(),
            intake_ps=self._profile.intake_ps,
            cooling=self._profile.cooled(),
            shape_ps=self._profile.shape_ps,
        )
        self._held: dict[str, _Held] = {}
        self._of_sequence: dict[Sequence, _Held] = {}
        self._ready: list[Delta] = []
        self._numbers = itertools.count()

    def start(self, report: Report) -> EngineInfo:
        """Check that the context fits into the imaginary KV cache; load nothing.

        Raises:
            StartError: One request of full length would not fit.
        """
        limits, context = self._sizes
        if self._sizes.shortfall:
            raise StartError(
                f"With kv_cache_gib {self._config.kv_cache_gib:g}, {self._sizes.shortfall}.",
                code="kv_too_small",
                hint="Raise kv_cache_gib or lower max_model_len.",
            )
        report("ready", 1.0)
        return EngineInfo(
            kind=EngineKind.MODEL,
            max_model_len=context,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            kv_tokens=self._sizes.kv_tokens,
            block_size=limits.block_size,
            async_scheduling=limits.async_scheduling,
            kv_token_bytes=self._profile.kv_bytes_per_token,
            graph_sizes=self._profile.step_time.graph_sizes,
            device=f"model of {self._profile.name}",
        )

    def submit(self, request: EngineRequest) -> None:
        """Let the request's sequences wait for a place in the batch."""
        context = self._sizes.context
        check_request(request, self._config.task, context)
        embeds = request.task is Task.EMBED
        room = 0 if embeds else room_left(request, context)
        if room == 0 and not embeds:
            self._ready.append(spent(request))
            return
        held = self._held[request.key] = _Held(request)
        limits = self._sizes.limits
        tokens = [*request.prompt_ids, *request.resume_ids]
        keys = token_keys(tokens, limits.block_size) if limits.prefix_caching else ()
        for choice in range(1 if embeds else request.sampling.n):
            sequence = Sequence(
                prompt=len(tokens),
                room=room,
                priority=request.priority,
                arrival=int((request.arrival_s or 0.0) * _NS_PER_S),
                number=next(self._numbers),
                keys=keys,
            )
            held.choices[sequence] = choice
            self._of_sequence[sequence] = held
            self._engine.add(sequence, self._now_ps())

    def cancel(self, key: str) -> None:
        """Forget a request."""
        self._ready = [delta for delta in self._ready if delta.key != key]
        held = self._held.pop(key, None)
        if held is None:
            return
        for sequence in held.choices:
            self._engine.abort(sequence, self._now_ps())
            del self._of_sequence[sequence]
        self._engine.obey(self._now_ps())

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._held or self._ready)

    def step(self) -> StepOutput:
        """Choose a step, wait for as long as it would take, give its tokens out."""
        deltas, self._ready = self._ready, []
        if self._held:
            deltas += self._compute()
        return StepOutput(deltas, self.stats())

    def stats(self) -> EngineStats:
        """State of the batch."""
        return EngineStats(**self._engine.load(self._now_ps())._asdict())

    def stop(self) -> None:
        """Forget everything."""
        for key in list(self._held):
            self.cancel(key)

    def _compute(self) -> list[Delta]:
        stretch = self._engine.start(self._now_ps(), max_steps=1)
        assert stretch is not None, "a request is held and nothing can be computed"
        for sequence in stretch.admitted:
            held = self._of_sequence[sequence]
            held.scheduled_ns = held.scheduled_ns or stretch.start_ps // PS_PER_NS
            if not sequence.preemptions:
                held.cached = sequence.found * self._sizes.limits.block_size
        decoding = self._engine.decoding
        self._sleep(max(0, to_ns(stretch.end_ps) - self._clock_ns()) / _NS_PER_S)
        self._engine.finish()
        now_ps = stretch.end_ps
        return [
            self._delta(sequence, self._engine.tokens_at(sequence, now_ps))
            for sequence in (*decoding, *stretch.prefilled)
        ]

    def _now_ps(self) -> int:
        return self._clock_ns() * PS_PER_NS

    def _step_time(self) -> StepTime:
        config = self._config
        if not config.step_time:
            return self._profile.step_time
        folder = None if config.plugin_dir is None else Path(config.plugin_dir)
        own = users_step_time(config.step_time, folder)
        return scaled_step_time(own, config.step_scale, config.prefill_scale)

    def _delta(self, sequence: Sequence, generated: int) -> Delta:
        held = self._of_sequence[sequence]
        request = held.request
        choice = held.choices[sequence]
        delta = Delta(key=request.key, choice=choice)
        if not held.told:
            held.told = True
            delta.scheduled_ns = held.scheduled_ns
            delta.cached_tokens = held.cached
        if request.task is Task.EMBED:
            delta.embedding = bag_vector(request.prompt_ids)
            delta.finish = FinishReason.STOP
        else:
            delta.first_index = len(request.resume_ids) + generated - 1
            delta.token_ids = echoed(request.prompt_ids, delta.first_index, 1, choice)
            if generated >= sequence.room:
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


def _spec(config: EngineConfig) -> EngineSpec:
    """The engine as the scenario said it, as far as its bounds go."""
    return EngineSpec(
        kind=config.kind,
        model=config.name,
        task="embed" if config.task is Task.EMBED else "generate",
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        kv_cache_gib=config.kv_cache_gib,
        options=config.args,
    )
