"""No engine: for workers whose app serves everything."""

from __future__ import annotations

from anyserve.runtime.engines.base import (
    EngineInfo,
    EngineKind,
    EngineRequest,
    EngineRequestError,
    EngineStats,
    Report,
    StepOutput,
)


class NoEngine:
    """Computes nothing and refuses everything; the step loop sleeps until it is told to stop."""

    def start(self, report: Report) -> EngineInfo:
        """Nothing to load."""
        report("ready", 1.0)
        return EngineInfo(
            kind=EngineKind.NONE,
            max_model_len=0,
            max_num_seqs=0,
            max_num_batched_tokens=0,
            kv_tokens=0,
        )

    def submit(self, request: EngineRequest) -> None:
        """Refuse it.

        Raises:
            EngineRequestError: always.
        """
        raise EngineRequestError(
            f"{request.key}: this replica has no engine, and no handler for it.", code="wrong_task"
        )

    def cancel(self, key: str) -> None:
        """Nothing is held."""

    @property
    def has_work(self) -> bool:
        """Never."""
        return False

    def step(self) -> StepOutput:
        """Nothing happens."""
        return StepOutput([], self.stats())

    def stats(self) -> EngineStats:
        """Nothing runs."""
        return EngineStats()

    def stop(self) -> None:
        """Nothing to free."""
