"""Plays waves on an engine and times its steps.

What a step computed is not asked of the engine: our model of the scheduler (`core.engine.Batch`)
plays the same requests beside it and says so. After each step both must agree on who runs and who
waits; if they do not, the engine follows rules that we do not know, and a fit would be worthless.

A step's time includes telling somebody of it, as the worker's loop does before the next one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

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
        self._limits = EngineLimits(
            max_num_seqs=info.max_num_seqs,
            max_num_batched_tokens=info.max_num_batched_tokens,
            kv_blocks=0 if embeds else info.kv_tokens // max(1, info.block_size),
            block_size=info.block_size or 16,
            prefix_caching=False,  # no two prompts are alike
            chunked_prefill=not embeds,
            async_scheduling=info.async_scheduling,
        )
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
        batch = Batch(self._limits)
        asks = sorted(wave.asks, key=lambda ask: ask.before_step)
        steps: list[MeasuredStep] = []
        count = 0
        if wave.rest_s:
            self._sleep(wave.rest_s)
        while asks or self._engine.has_work:
            while asks and asks[0].before_step <= count:
                self._submit(asks.pop(0), batch)
            count += 1
            if self._engine.has_work:
                steps.append(self._step(batch, wave, first=not steps))
        return steps

    def _submit(self, ask: Ask, batch: Batch) -> None:
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
        batch.add(
            Sequence(prompt=ask.prompt, room=ask.output, arrival=self._number, number=self._number)
        )

    def _step(self, batch: Batch, wave: Wave, *, first: bool) -> MeasuredStep:
        plan = batch.plan()
        work = _work(plan, batch)
        new_shape = self._is_new(work.prefill_tokens + work.decodes)
        wall_ns, cpu_ns = self._clock_ns(), self._cpu_ns()
        output = self._engine.step()
        self._send(ipc.StepFrame(0, 0, 0, output.deltas, output.stats, []))
        cpu_ns = self._cpu_ns() - cpu_ns
        wall_ns = self._clock_ns() - wall_ns
        batch.commit(plan)
        self._check(batch, output.stats, wave.name)
        rested = first and wave.rest_s > 0
        return MeasuredStep(*work, wall_ns, cpu_ns, wave.held_out, rested, new_shape)

    def _is_new(self, tokens: int) -> bool:
        """Whether the engine's library prepares for so many tokens in this step."""
        new = self._prepares and tokens not in self._shapes
        self._shapes.add(tokens)
        return new

    def _check(self, batch: Batch, stats: EngineStats, wave: str) -> None:
        if not self._engine.has_work:
            return  # nobody reports after the last step
        ours, theirs = (batch.running, batch.waiting), (stats.running, stats.waiting)
        if ours != theirs:
            raise CalibrationError(
                f"In '{wave}' the engine has {theirs[0]} running and {theirs[1]} waiting, the "
                f"model of its scheduler {ours[0]} and {ours[1]}.",
                code="calibration_mismatch",
                hint="The fit would be worthless. Leave out engine options that change scheduling.",
            )


def _work(plan: StepPlan, batch: Batch) -> StepWork:
    if plan.packed:
        decodes, context = batch.pack.size, batch.pack.context
    else:
        decodes, context = len(plan.decodes), plan.context
    return StepWork(plan.prefill_tokens, len(plan.prefills), decodes, context, plan.attention)
