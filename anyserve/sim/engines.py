"""From a replica's specification to the model of its engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from anyserve.core.engine.batch import BatchLimits
from anyserve.core.engine.model import EngineModel
from anyserve.core.engine.profiles import EngineProfile, profile_for
from anyserve.core.engine.step_time import StepTimeModel
from anyserve.core.messages import Request
from anyserve.core.spec import EngineSpec

_BATCHED_TOKENS: Final = 256
_DEFAULT_CONTEXT: Final = 2048
_PS_PER_MS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """An engine as it is built for one replica. `load_ns`: until it is ready."""

    limits: BatchLimits
    step_time: StepTimeModel
    context: int
    embeds: bool
    name: str
    load_ns: int = 0

    def make(self) -> EngineModel:
        """An engine with nothing in it."""
        return EngineModel(self.limits, self.step_time)

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
    embeds = spec.task == "embed"
    profile = profile_for(spec.profile or spec.model or "", embeds=embeds)
    step_time = profile.step_time
    if spec.kind == "echo":
        step_time = StepTimeModel(
            base_ps=round(spec.step_ms * _PS_PER_MS), prefill_ps=0, decode_ps=0
        )
    context = spec.max_model_len or min(profile.context, _DEFAULT_CONTEXT)
    tokens = spec.max_num_batched_tokens or _BATCHED_TOKENS
    limits = BatchLimits(
        max_num_seqs=spec.max_num_seqs,
        max_num_batched_tokens=max(tokens, context) if embeds else tokens,
        kv_blocks=0 if embeds or spec.kind == "echo" else _kv_blocks(spec, profile),
        block_size=profile.block_size,
        chunked_prefill=not embeds,
    )
    return EngineSetup(limits, step_time, context, embeds, profile.name)


def _kv_blocks(spec: EngineSpec, profile: EngineProfile) -> int:
    return profile.kv_blocks(spec.kv_cache_gib)
