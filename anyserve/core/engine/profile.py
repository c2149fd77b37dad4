"""What is known of one kind of replica: how fast its engine computes, and where that comes from."""

from __future__ import annotations

from typing import Final

import msgspec

from anyserve.core.engine.cooling import Cooling
from anyserve.core.engine.step_time import StepTimeModel, StepWork

_GIB = 1 << 30
_COLD_MS: Final = 50
FORMAT: Final = 1


class Range(msgspec.Struct, frozen=True, array_like=True):
    """The least and the most that was measured."""

    low: int
    high: int


class MeasuredRanges(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the formula was fitted; elsewhere it is a guess. None: unknown."""

    prefill_tokens: Range | None = None
    decodes: Range | None = None
    context: Range | None = None
    """Context tokens that the decodes of a step read."""

    def beyond(self, work: StepWork) -> list[str]:
        """The names of those that a step is beyond; being below one is no guess."""
        return [
            name
            for name, value in (
                ("prefill_tokens", work.prefill_tokens),
                ("decodes", work.decodes),
                ("context", work.context),
            )
            if (known := getattr(self, name)) is not None and value > known.high
        ]


class FitQuality(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How well the formula predicts steps that were not used for the fit. Shares, not percent."""

    form: str
    """The terms that were chosen."""
    steps: int
    held_out_steps: int
    r2: float
    median_error: float
    """Median of |predicted / measured - 1| over the held-out batches."""
    p90_error: float
    mean_bias: float
    """Predicted time of all held-out batches together, over the measured, minus 1."""
    others: dict[str, float] = {}
    """Median error of the forms that were not chosen."""


class EngineProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine as the model of it sees it; the content of a profile file."""

    format: int = FORMAT
    name: str
    step_time: StepTimeModel
    context: int
    """Tokens of context that the model was trained for."""
    kv_bytes_per_token: int
    """Size of one token in the KV cache; 0 where there is none (embedding models)."""
    block_size: int
    """Tokens per KV block."""
    source: str
    """Where the numbers come from, in words."""
    published: bool = False
    """Whether they were put together from what others published, not measured by `calibrate`."""
    load_s: float = 0.0
    """From the start of a worker, forked from a process that has imported the engine, until it is
    ready."""
    intake_us: float = 0.0
    """Time of the engine's loop per request, outside of steps: taking it in."""
    cooling: tuple[tuple[int, float], ...] = ()
    """(ms without work, µs that the first step takes longer after it), ascending."""
    cold_us: float = 0.0
    """In profiles without `cooling`: how much longer it takes after 50 ms or more."""
    shape_us: float = 0.0
    """How much longer, for each of its tokens, a step takes that computes so many as none before:
    a CPU's library makes its matrix products for each number of tokens."""
    residuals: tuple[float, ...] = ()
    """Measured / predicted - 1 of single steps: its quantiles at evenly spaced probabilities."""
    contention: tuple[tuple[int, float], ...] = ()
    """(busy engines, how many times as long a step takes then) on the machine that was measured."""
    kv_tokens: int = 0
    """Tokens that the KV cache holds on that machine; 0: as the scenario's `kv_cache_gib` says."""
    max_num_batched_tokens: int = 0
    """Tokens per step there; 0: unknown."""
    async_scheduling: bool = False
    """Whether steps are planned ahead there, as vLLM does on GPUs unless it is told otherwise."""
    ranges: MeasuredRanges = MeasuredRanges()
    quality: FitQuality | None = None
    machine: dict[str, str] = {}
    versions: dict[str, str] = {}
    engine: dict[str, str] = {}
    """The settings of the engine that was measured."""

    @property
    def embeds(self) -> bool:
        """Whether it is an embedding model."""
        return self.kv_bytes_per_token == 0

    @property
    def intake_ps(self) -> int:
        """`intake_us` as the engine model takes it."""
        return round(self.intake_us * 1_000_000)

    def cooled(self) -> Cooling | None:
        """`cooling` as the engine model takes it; None: a rest changes nothing."""
        points = self.cooling or ((_COLD_MS, self.cold_us),)
        if not any(us for _, us in points):
            return None
        return Cooling(tuple((ms * 1_000_000_000, round(us * 1_000_000)) for ms, us in points))

    @property
    def shape_ps(self) -> int:
        """`shape_us` as the engine model takes it."""
        return round(self.shape_us * 1_000_000)

    def scaled(self, scale: float, prefill_scale: float = 1.0) -> EngineProfile:
        """That of an engine that computes `scale` times as long: its steps, and what it does
        between them; what prompts add `prefill_scale` times as long once more. Loading stays as it
        is."""
        if scale == prefill_scale == 1.0:
            return self
        return msgspec.structs.replace(
            self,
            step_time=self.step_time.scaled(scale, prefill_scale),
            intake_us=self.intake_us * scale,
            cooling=tuple((ms, us * scale) for ms, us in self.cooling),
            cold_us=self.cold_us * scale,
            shape_us=self.shape_us * scale * prefill_scale,
        )

    def kv_blocks(self, kv_cache_gib: float, block_size: int | None = None) -> int:
        """KV blocks of an engine with a cache of this size."""
        size = block_size or self.block_size
        if self.kv_bytes_per_token == 0:
            return 0
        if self.kv_tokens:
            return self.kv_tokens // size + 1
        return int(kv_cache_gib * _GIB) // (self.kv_bytes_per_token * size)

    def pace(self, busy: int, cores: int) -> int:
        """Thousandths of a step's time that it takes while `busy` engines, itself included, share
        `cores` cores. By engines per core: between what was measured it is interpolated, beyond it
        the cores are shared."""
        if busy <= 1 or not self.contention:
            return 1000
        load = busy / cores
        measured_on = int(self.machine.get("cores", cores))
        known = sorted((count / measured_on, factor) for count, factor in self.contention)
        (low, first), *rest = [(1 / measured_on, 1.0), *known]
        if load <= low:
            return 1000
        for high, second in rest:
            if load <= high:
                return round(1000 * (first + (second - first) * (load - low) / (high - low)))
            low, first = high, second
        return round(1000 * first * load / low)
