from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from anyserve.runtime.engines.vllm_steps import VllmSteps


def stats(running: int, queries: int = 0, hits: int = 0) -> SimpleNamespace:
    prefix = SimpleNamespace(queries=queries, hits=hits)
    return SimpleNamespace(
        num_running_reqs=running, num_waiting_reqs=0, kv_cache_usage=0.5, prefix_cache_stats=prefix
    )


class Core:
    """Plans and ends steps as it is told, in vLLM's words."""

    def __init__(self, *, ahead: bool) -> None:
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=ahead))
        self.engine_core: Any = self
        self.scheduler = self
        self.tokens: list[int] = []
        self.said: list[SimpleNamespace | None] = []

    def schedule(self) -> SimpleNamespace:
        return SimpleNamespace(total_num_scheduled_tokens=self.tokens.pop(0))

    def get_output(self) -> SimpleNamespace:
        return SimpleNamespace(scheduler_stats=self.said.pop(0))


def test_statistics_count_even_of_steps_that_produce_nothing() -> None:
    core, steps = Core(ahead=False), VllmSteps()
    steps.follow(core)

    core.said = [stats(1, queries=100, hits=64), stats(2, queries=10)]
    core.get_output()
    core.get_output()

    found = steps.stats(held=2)
    assert (found.running, found.prefix_queries, found.prefix_hits) == (2, 110, 64)
    assert steps.stats(held=0).running == 0


def test_a_call_that_ends_no_step_or_an_empty_one_is_known() -> None:
    core, steps = Core(ahead=True), VllmSteps()
    steps.follow(core)
    computed = []

    def call(tokens: int | None, said: SimpleNamespace | None) -> None:
        if tokens is not None:
            core.tokens = [tokens]
            core.scheduler.schedule()
        core.said = [said]
        core.get_output()
        computed.append(steps.computed)

    call(32, None)  # the first one is sent off
    call(1, stats(1))  # ends the first
    call(0, stats(1))  # ends the second; the third has nothing to compute
    call(16, stats(1))  # ends the third
    call(None, stats(0))

    assert computed == [False, True, True, False, True]


def test_where_nothing_is_planned_ahead_each_call_is_a_step() -> None:
    core, steps = Core(ahead=False), VllmSteps()
    steps.follow(core)
    core.tokens = [0]

    core.scheduler.schedule()
    core.said = [stats(1)]
    core.get_output()

    assert steps.computed
