"""What becomes of vLLM's steps: which have ended, and what its scheduler said of them.

vLLM hands the statistics of its scheduler to its loggers, some versions only with steps that
produced something, so they are read where its engine takes the outputs of its core. With
asynchronous scheduling two steps are in flight: a call then may end none (it only sends the first
one off), or one in which nothing was computed (all that it could have computed had ended).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from anyserve.runtime.engines.base import EngineStats


class VllmSteps:
    """Follows an `LLMEngine` with its core in process."""

    def __init__(self) -> None:
        self._planned: deque[int] | None = None
        """Tokens of each step in flight, the oldest first; None: each call is a step."""
        self._computed = True
        self.forget()

    def forget(self) -> None:
        """Count anew."""
        self._running = 0
        self._waiting = 0
        self._kv_usage = 0.0
        self._queries = 0
        self._hits = 0
        self._preemptions = 0

    def follow(self, engine: Any) -> None:
        """From now on."""
        client = engine.engine_core
        take = client.get_output

        def get_output() -> Any:
            outputs = take()
            self._took(outputs.scheduler_stats)
            return outputs

        client.get_output = get_output
        scheduler = scheduler_of(engine)
        if engine.vllm_config.scheduler_config.async_scheduling and scheduler is not None:
            self._planned = _sizes_of_plans(scheduler)  # else some frames will be empty

    @property
    def computed(self) -> bool:
        """Whether the latest call ended a step in which something was computed."""
        return self._computed

    def _took(self, stats: Any) -> None:
        if self._planned is not None:
            self._computed = stats is not None and self._planned.popleft() > 0
        if stats is None:
            return
        self._running = stats.num_running_reqs
        self._waiting = stats.num_waiting_reqs
        self._kv_usage = stats.kv_cache_usage
        prefix = stats.prefix_cache_stats
        if prefix is not None:
            self._queries += prefix.queries
            self._hits += prefix.hits

    def logger(self) -> Any:
        """Return what vLLM calls to make its logger: preemptions are told to it alone."""
        from vllm.v1.metrics.loggers import StatLoggerBase  # noqa: PLC0415

        steps = self

        class Logger(StatLoggerBase):  # type: ignore[misc]  # vllm has no types for us
            def __init__(self, _config: Any, _engine_index: int = 0) -> None:
                pass

            def record(self, _scheduler: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
                if iteration_stats is not None:
                    steps._preemptions += iteration_stats.num_preempted_reqs

            def log_engine_initialized(self) -> None:
                pass

        return Logger

    def stats(self, held: int) -> EngineStats:
        """As the latest step left them. `held`: requests that the engine was given and holds."""
        if held == 0:  # what was cancelled leaves without a step that would report it
            self._running = self._waiting = 0
            self._kv_usage = 0.0
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            kv_usage=self._kv_usage,
            prefix_queries=self._queries,
            prefix_hits=self._hits,
            preemptions=self._preemptions,
        )


def scheduler_of(engine: Any) -> Any:
    """The scheduler of an `LLMEngine` with its core in process, to which no documented way leads;
    None where this version has it elsewhere."""
    core = getattr(engine.engine_core, "engine_core", None)
    return getattr(core, "scheduler", None)


def _sizes_of_plans(scheduler: Any) -> deque[int]:
    """Will hold how many tokens each plan of vLLM's scheduler computes."""
    sizes: deque[int] = deque()
    plan = scheduler.schedule

    def schedule(*args: Any, **kwargs: Any) -> Any:
        planned = plan(*args, **kwargs)
        sizes.append(planned.total_num_scheduled_tokens)
        return planned

    scheduler.schedule = schedule
    return sizes
