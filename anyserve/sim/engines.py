"""From a replica's specification to the model of its engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyserve.core.engine.jitter import Jitter
from anyserve.core.engine.limits import EngineLimits
from anyserve.core.engine.model import EngineModel
from anyserve.core.engine.profile import EngineProfile
from anyserve.core.engine.range_watch import RangeWatch
from anyserve.core.engine.sizing import engine_sizes
from anyserve.core.engine.step_time import StepTime, StepTimeModel
from anyserve.core.messages import Request
from anyserve.core.spec import EngineSpec
from anyserve.errors import StartError
from anyserve.workload.profiles import known_engine
from anyserve.workload.schema import Engine

_PS_PER_MS: Final = 1_000_000_000
_NS_PER_S: Final = 1_000_000_000


def modelled(_section: Engine) -> str:
    """What an engine is in a simulation whose scenario says `kind: auto`."""
    return "model"


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """An engine as it is built for one replica. `load_ns`: until it is ready."""

    limits: EngineLimits
    step_time: StepTime
    context: int
    embeds: bool
    name: str
    load_ns: int = 0
    profile: EngineProfile | None = None
    """None: an echo, which takes nothing but the time of its steps."""
    watch: RangeWatch | None = None
    guessed_for: str = ""
    """The model of which nothing is known, where the profile is another's."""

    jitters: bool = False

    def make(self, seed: int) -> EngineModel:
        """An engine with nothing in it. `seed`: of its jitter."""
        profile = self.profile
        if profile is None:
            return EngineModel(self.limits, self.step_time)
        residuals = profile.residuals if self.jitters else ()
        return EngineModel(
            self.limits,
            self.step_time,
            intake_ps=profile.intake_ps,
            cooling=profile.cooled(),
            shape_ps=profile.shape_ps,
            jitter=Jitter(residuals, seed) if residuals else None,
            watch=self.watch,
        )

    def notes(self) -> list[str]:
        """What should be known of figures that rest on this engine."""
        notes = []
        if self.guessed_for:
            notes.append(
                f"nothing is known of how fast {self.guessed_for} computes: {self.name}'s times "
                "were taken (anyserve calibrate)"
            )
        if self.watch is not None:
            beyond = (
                f"beyond what {self.name} was measured for: {one}" for one in self.watch.said()
            )
            notes.extend(beyond)
        return notes

    def pace(self, busy: int, cores: int) -> int:
        """Thousandths of its time that a step takes while so many engines share the cores."""
        return 1000 if self.profile is None else self.profile.pace(busy, cores)

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


def engine_setup(
    spec: EngineSpec, scenario_dir: str | None = None, *, jitters: bool = False
) -> EngineSetup:
    """The engine of a replica: its limits, and how long its steps take. `jitters`: not always as
    the formula says, but as scattered as when it was measured.

    Raises:
        UsageError: `profile` names no profile.
        PluginError: `profile` names a class that cannot be used.
        StartError: a sequence of full length does not fit into its KV cache.
    """
    profile, step_time, guessed = known_engine(
        spec, None if scenario_dir is None else Path(scenario_dir)
    )
    sizes = engine_sizes(spec, profile)
    limits, context = sizes
    if sizes.shortfall and spec.kind != "echo":
        raise StartError(
            f"{profile.name} could not start: {sizes.shortfall}.",
            code="kv_too_small",
            hint="Raise kv_cache_gib or lower max_model_len.",
        )
    if spec.kind == "echo":
        step_time = StepTimeModel(base_ps=round(spec.step_ms * _PS_PER_MS))
        limits = limits.without_cache()
    real = spec.kind in {"vllm", "auto"}
    return EngineSetup(
        limits,
        step_time,
        context,
        spec.task == "embed",
        profile.name,
        profile=profile if spec.kind != "echo" else None,
        jitters=jitters,
        load_ns=round(profile.load_s * _NS_PER_S) if real else 0,
        watch=RangeWatch(profile.ranges) if spec.kind != "echo" else None,
        guessed_for=spec.model or "the model" if guessed and spec.kind != "echo" else "",
    )
