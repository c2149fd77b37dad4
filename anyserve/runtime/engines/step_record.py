"""A record of the steps of a live vLLM engine: what each computed, and how long it took.

Set ANYSERVE_RECORD_STEPS to a folder for the run; each worker writes `steps-PID.jsonl` into it. The
lines are what a profile's formula takes (`core.engine.step_time`) and what it should say.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from anyserve.runtime.engines.vllm_steps import scheduler_of

RECORD_ENV: Final = "ANYSERVE_RECORD_STEPS"


class RecordedStep(msgspec.Struct, frozen=True):
    """One step."""

    started_ns: int
    wall_ns: int
    cpu_ns: int
    """Of the thread that steps."""
    prefill_tokens: int
    prefills: int
    decodes: int
    context: int
    attention: int


class StepRecord:
    """Notes what vLLM's scheduler plans, and writes it down with the time that it took."""

    def __init__(self, scheduler: Any, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._scheduler = scheduler
        self._schedule = scheduler.schedule
        scheduler.schedule = self._planned
        self._in_flight: deque[list[int]] = deque()
        """What was planned and has not ended; two, where vLLM plans ahead."""
        self._began = (0, 0)

    def begin(self) -> None:
        """A step begins."""
        self._began = (time.monotonic_ns(), time.thread_time_ns())

    def end(self) -> None:
        """It has ended."""
        started_ns, cpu_ns = self._began
        wall_ns = time.monotonic_ns() - started_ns
        if not self._in_flight:
            return
        work = self._in_flight.popleft()
        step = RecordedStep(started_ns, wall_ns, time.thread_time_ns() - cpu_ns, *work)
        self._file.write(msgspec.json.encode(step) + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _planned(self, *args: Any, **kwargs: Any) -> Any:
        plan = self._schedule(*args, **kwargs)
        cached = plan.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        computed |= {new.req_id: new.num_computed_tokens for new in plan.scheduled_new_reqs}
        work = [0, 0, 0, 0, 0]
        for name, tokens in plan.num_scheduled_tokens.items():
            done = computed[name]
            if tokens == 1 and done >= self._scheduler.requests[name].num_prompt_tokens:
                work[2] += 1
                work[3] += done + 1
            else:
                work[0] += tokens
                work[1] += 1
                work[4] += tokens * (2 * done + tokens)
        if plan.num_scheduled_tokens:
            self._in_flight.append(work)
        return plan


def step_record(engine: Any, environ: Mapping[str, str] = os.environ) -> StepRecord | None:
    """A record of the steps of vLLM's `LLMEngine`, where the environment asks for one."""
    folder = environ.get(RECORD_ENV)
    if not folder:
        return None
    return StepRecord(scheduler_of(engine), Path(folder) / f"steps-{os.getpid()}.jsonl")
