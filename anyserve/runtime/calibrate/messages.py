"""What the command and the process with the engine say to each other."""

from __future__ import annotations

import msgspec

from anyserve.core.engine.step_time import StepWork
from anyserve.errors import AnyServeError
from anyserve.runtime.engines.base import EngineInfo


class CalibrationError(AnyServeError):
    """The engine cannot be measured: it broke, or does not schedule as we know vLLM to."""

    exit_code = 1


class MeasuredStep(msgspec.Struct, frozen=True, array_like=True):
    """One step: what was in it, and how long it took on both clocks."""

    prefill_tokens: int
    prefills: int
    decodes: int
    context: int
    attention: int
    wall_ns: int
    cpu_ns: int
    """Of the thread that steps; the same as `wall_ns` on a machine with nothing else to do, unless
    other threads or a GPU do the work."""
    held_out: bool
    rest_ms: int = 0
    """The engine stood idle so long before it. Not for the fit: it says what cold caches cost."""
    new_shape: bool = False
    """No step before had as many tokens, and the engine computes on a CPU."""

    @property
    def work(self) -> StepWork:
        """What was in it."""
        return StepWork(
            self.prefill_tokens, self.prefills, self.decodes, self.context, self.attention
        )


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Play the designed waves, then random ones until the time is up."""

    seconds: float
    seed: int


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Play a few waves, always the same, to see how fast the engine is now."""

    seconds: float


class Spin(msgspec.Struct, frozen=True, tag="spin"):
    """Compute until the input ends, to be a neighbour of somebody else's engine."""


Command = Measure | Probe | Spin


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """How far the engine is."""

    stage: str
    fraction: float


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The engine is ready for commands."""

    info: EngineInfo
    load_s: float
    """Since its libraries were imported."""


class Measuring(msgspec.Struct, frozen=True, tag="measuring"):
    """How far the measuring is."""

    wave: str
    fraction: float
    steps: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """All steps of one command."""

    steps: list[MeasuredStep]
    intakes: list[tuple[int, int]]


class Spinning(msgspec.Struct, frozen=True, tag="spinning"):
    """It computes."""


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """It cannot go on."""

    message: str
    code: str
    hint: str = ""


Answer = Loading | Loaded | Measuring | Measured | Spinning | Broken
