"""An engine that says the prompt again: deterministic, instant or at a fixed pace. For tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

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

_DEFAULT_CONTEXT = 4096


@dataclass(slots=True)
class _Echo:
    request: EngineRequest
    room: int
    sent: int = 0
    started: bool = False


class EchoEngine:
    """Answers every request with its own prompt, `tokens_per_step` tokens per step."""

    def __init__(
        self,
        config: EngineConfig,
        sleep: Callable[[float], None] = time.sleep,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._config = config
        self._context = config.max_model_len or _DEFAULT_CONTEXT
        self._sleep = sleep
        self._clock_ns = clock_ns
        self._held: dict[str, _Echo] = {}

    def start(self, report: Report) -> EngineInfo:
        """Nothing to load."""
        report("ready", 1.0)
        return EngineInfo(
            kind=EngineKind.ECHO,
            max_model_len=self._context,
            max_num_seqs=self._config.max_num_seqs,
            max_num_batched_tokens=self._config.max_num_batched_tokens or self._context,
            kv_tokens=0,
        )

    def submit(self, request: EngineRequest) -> None:
        """Take a request in."""
        check_request(request, self._config.task, self._context)
        self._held[request.key] = _Echo(request, room_left(request, self._context))

    def cancel(self, key: str) -> None:
        """Forget a request."""
        self._held.pop(key, None)

    @property
    def has_work(self) -> bool:
        """Whether a request is held."""
        return bool(self._held)

    def step(self) -> StepOutput:
        """Give the first `max_num_seqs` requests their next tokens."""
        if self._config.step_interval_ms:
            self._sleep(self._config.step_interval_ms / 1000)
        now_ns = self._clock_ns()
        deltas: list[Delta] = []
        for echo in list(self._held.values())[: self._config.max_num_seqs]:
            deltas += self._advance(echo, now_ns)
            if deltas[-1].done:
                del self._held[echo.request.key]
        return StepOutput(deltas, self.stats())

    def stats(self) -> EngineStats:
        """How many requests run and wait."""
        running = min(len(self._held), self._config.max_num_seqs)
        return EngineStats(running=running, waiting=len(self._held) - running)

    def stop(self) -> None:
        """Forget everything."""
        self._held.clear()

    def _advance(self, echo: _Echo, now_ns: int) -> list[Delta]:
        request = echo.request
        scheduled_ns = 0 if echo.started else now_ns
        echo.started = True
        if request.task is Task.EMBED:
            vector = bag_vector(request.prompt_ids)
            return [
                Delta(
                    key=request.key,
                    embedding=vector,
                    finish=FinishReason.STOP,
                    done=True,
                    scheduled_ns=scheduled_ns,
                )
            ]
        if echo.room == 0:
            return [spent(request)]
        count = min(self._config.tokens_per_step, echo.room - echo.sent)
        first = len(request.resume_ids) + echo.sent
        echo.sent += count
        ended = echo.sent == echo.room
        deltas = [
            Delta(
                key=request.key,
                choice=choice,
                first_index=first,
                token_ids=echoed(request.prompt_ids, first, count, choice),
                finish=FinishReason.LENGTH if ended else None,
                scheduled_ns=scheduled_ns if choice == 0 else 0,
            )
            for choice in range(request.sampling.n)
        ]
        deltas[-1].done = ended
        return deltas
