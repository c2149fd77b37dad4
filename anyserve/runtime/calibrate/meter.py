"""Plays waves on an engine and times its steps.

What a step computed is not asked of the engine: our model of the scheduler (`core.engine.Batch`)
plays the same requests beside it and says so. After each step both must agree on who runs and who
waits; if they do not, the engine follows rules that we do not know, and a fit would be worthless.

A step's time includes telling somebody of it, as the worker's loop does before the next one. An
engine that plans ahead has the next step in flight by then; the time of that one begins where the
time of the one before ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

from anyserve.core.engine.async_batch import AsyncBatch
from anyserve.core.engine.batch import Batch
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.plan import StepPlan
from anyserve.core.engine.sequence import Sequence
from anyserve.core.engine.step_time import StepWork
from anyserve.runtime.calibrate.messages import CalibrationError, MeasuredStep
from anyserve.runtime.calibrate.waves import Ask, Wave
from anyserve.runtime.engines.base import (
    Engine,
    EngineInfo,
    EngineRequest,
    EngineStats,
    Sampling,
    Task,
)
from anyserve.runtime.worker import ipc

_FIRST_TOKEN: Final = 100
"""Ids below often have a meaning of their own."""


class Meter:
    """Times the steps of one engine."""

    def __init__(
        self,
        engine: Engine,
        info: EngineInfo,
        *,
        embeds: bool,
        clock_ns: Callable[[], int],
        cpu_ns: Callable[[], int],
        sleep: Callable[[float], None],
        send: Callable[[msgspec.Struct], None],
    ) -> None:
        self._engine = engine
        self._embeds = embeds
        self._clock_ns = clock_ns
        self._cpu_ns = cpu_ns
        self._sleep = sleep
        self._send = send
        self._vocab = info.vocab_size or 2 * _FIRST_TOKEN
        self._rng = random.Random(1)  # noqa: S311 - not for secrets
        self._mirror = _Mirror(
            EngineLimits(
                max_num_seqs=info.max_num_seqs,
                max_num_batched_tokens=info.max_num_batched_tokens,
                kv_blocks=0 if embeds else info.kv_tokens // max(1, info.block_size),
                block_size=info.block_size or 16,
                prefix_caching=False,  # no two prompts are alike
                chunked_prefill=not embeds,
                async_scheduling=info.async_scheduling,
            )
        )
        self._since = (0, 0)
        """When the time of the step in flight began: wall and CPU."""
        self._prepares = info.device == "cpu"  # on a GPU, vLLM has prepared everything
        self._shapes = {1, info.max_num_batched_tokens}
        self._number = 0
        self.intakes: list[tuple[int, int]] = []
        """(wall ns, CPU ns) of taking in one request each."""

    def play(self, wave: Wave) -> list[MeasuredStep]:
        """Play a wave to its end.

        Raises:
            CalibrationError: The engine's batch is not what ours is.
        """
        asks = sorted(wave.asks, key=lambda ask: ask.before_step)
        steps: list[MeasuredStep] = []
        count = 0
        if wave.rest_ms:
            self._sleep(wave.rest_ms / 1000)
        while asks or self._engine.has_work:
            while asks and asks[0].before_step <= count:
                self._submit(asks.pop(0))
            count += 1
            if self._engine.has_work:
                steps.append(self._step(wave, first=not steps))
        return steps

    def _submit(self, ask: Ask) -> None:
        self._number += 1
        request = EngineRequest(
            key=f"c{self._number}",
            prompt_ids=[self._rng.randrange(_FIRST_TOKEN, self._vocab) for _ in range(ask.prompt)],
            task=Task.EMBED if self._embeds else Task.GENERATE,
            sampling=Sampling(max_tokens=max(1, ask.output), temperature=0.0, ignore_eos=True),
            arrival_s=float(self._number),
        )
        wall_ns, cpu_ns = self._clock_ns(), self._cpu_ns()
        self._engine.submit(request)
        self.intakes.append((self._clock_ns() - wall_ns, self._cpu_ns() - cpu_ns))
        self._mirror.add(
            Sequence(prompt=ask.prompt, room=ask.output, arrival=self._number, number=self._number)
        )

    def _step(self, wave: Wave, *, first: bool) -> MeasuredStep:
        if not self._mirror.in_flight:
            self._since = (self._clock_ns(), self._cpu_ns())
        output = self._engine.step()
        self._send(ipc.StepFrame(0, 0, 0, output.deltas, output.stats, []))
        (wall_ns, cpu_ns), self._since = self._since, (self._clock_ns(), self._cpu_ns())
        work = self._mirror.step()
        self._check(output.stats, wave.name)
        return MeasuredStep(
            *work,
            self._since[0] - wall_ns,
            self._since[1] - cpu_ns,
            wave.held_out,
            wave.rest_ms if first else 0,
            self._is_new(work.prefill_tokens + work.decodes),
        )

    def _is_new(self, tokens: int) -> bool:
        """Whether the engine's library prepares for so many tokens in this step."""
        new = self._prepares and tokens not in self._shapes
        self._shapes.add(tokens)
        return new

    def _check(self, stats: EngineStats, wave: str) -> None:
        if not self._engine.has_work:
            return  # nobody reports after the last step
        ours, theirs = self._mirror.state, (stats.running, stats.waiting)
        if ours != theirs:
            raise CalibrationError(
                f"In '{wave}' the engine has {theirs[0]} running and {theirs[1]} waiting, the "
                f"model of its scheduler {ours[0]} and {ours[1]}.",
                code="calibration_mismatch",
                hint="The fit would be worthless. Leave out engine options that change scheduling.",
            )


class _Mirror:
    """Our model of the engine's scheduler, with the same requests in it."""

    def __init__(self, limits: EngineLimits) -> None:
        self._ahead = limits.async_scheduling
        self._batch = AsyncBatch(limits) if self._ahead else Batch(limits)
        self._queued: StepPlan | None = None
        """What was planned beside the step before."""

    @property
    def in_flight(self) -> bool:
        """Whether the engine computes something between its steps' ends."""
        return self._queued is not None and not self._queued.empty

    @property
    def state(self) -> tuple[int, int]:
        """Sequences that run and that wait."""
        return self._batch.running, self._batch.waiting

    def add(self, sequence: Sequence) -> None:
        """A request comes."""
        self._batch.add(sequence)

    def step(self) -> StepWork:
        """The engine ended a step: what it computed."""
        batch, plan, self._queued = self._batch, self._queued, None
        if plan is None or plan.empty:
            if plan is not None:
                batch.commit(plan)
            plan = batch.plan()
        work = self._work(plan)
        if self._ahead:
            self._queued = batch.plan()
        batch.commit(plan)
        return work

    def _work(self, plan: StepPlan) -> StepWork:
        pack = self._batch.pack
        decodes, context = (
            (pack.size, pack.context) if plan.packed else (len(plan.decodes), plan.context)
        )
        prefills = len(plan.prefills)
        return StepWork(plan.prefill_tokens, prefills, decodes, context, plan.attention)
