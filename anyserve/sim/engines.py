"""From a replica's specification to the model of its engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.model import EngineModel
from anyserve.core.engine.sizing import engine_sizes
from anyserve.core.engine.step_time import StepTime, StepTimeModel
from anyserve.core.messages import Request
from anyserve.core.spec import EngineSpec
from anyserve.workload.profiles import known_engine

_PS_PER_MS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """An engine as it is built for one replica. `load_ns`: until it is ready."""

    limits: EngineLimits
    step_time: StepTime
    context: int
    embeds: bool
    name: str
    intake_ps: int = 0
    load_ns: int = 0

    def make(self) -> EngineModel:
        """An engine with nothing in it."""
        return EngineModel(self.limits, self.step_time, intake_ps=self.intake_ps)

    def refusal(self, request: Request) -> str:
        """Why this engine cannot take a request; empty: it can."""
        length = request.prompt_tokens + len(request.resume_ids)
        most = self.context if self.embeds else self.context - 1
        if length <= most:
            return ""
        return f"{length} prompt tokens, but this engine's context of {self.context} takes {most}."

    def room(self, request: Request) -> int:
        """Tokens that may be generated: bounded by `max_tokens` and by the context."""
        if self.embeds:
            return 0
        length = request.prompt_tokens + len(request.resume_ids)
        wanted = request.max_tokens - len(request.resume_ids)
        return max(0, min(wanted, self.context - length))


def engine_setup(spec: EngineSpec) -> EngineSetup:
    """The engine of a replica: its limits, and how long its steps take."""
    profile, step_time, _ = known_engine(spec)
    limits, context = engine_sizes(spec, profile)
    intake_ps = profile.intake_ps
    if spec.kind == "echo":
        step_time = StepTimeModel(base_ps=round(spec.step_ms * _PS_PER_MS))
        limits = msgspec.structs.replace(limits, kv_blocks=0)
        intake_ps = 0
    embeds = spec.task == "embed"
    return EngineSetup(limits, step_time, context, embeds, profile.name, intake_ps)
