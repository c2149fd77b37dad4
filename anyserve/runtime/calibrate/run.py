"""From a model's name to its profile: start the engine, have it measured, fit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from anyserve.core.engine.fit import Fitted, Sample, fit_step_time, relative_errors
from anyserve.core.engine.profile import EngineProfile
from anyserve.runtime.calibrate.messages import (
    Answer,
    Broken,
    CalibrationError,
    Command,
    Loaded,
    Loading,
    Measure,
    Measured,
    MeasuredStep,
    Measuring,
    Probe,
    Spin,
    Spinning,
)
from anyserve.runtime.engines.allocator import allocator_settings
from anyserve.runtime.engines.base import EngineConfig, EngineInfo

_BUSY_RATIO: Final = 1.02
_PROBE_S: Final = 6.0
_LOG_LINES: Final = 12
_PS_PER_US: Final = 1_000_000


class Report(msgspec.Struct, frozen=True):
    """Progress of a calibration: what it does, and how much of all is done (0 to 1)."""

    stage: str
    fraction: float


Show = Callable[[Report], None]
_A = TypeVar("_A", Loaded, Measured, Spinning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure. `neighbours`: with so many engines in all at once, one after the other."""

    name: str
    config: EngineConfig
    context: int | None
    """Tokens that the model was trained for; None: what the engine says."""
    seconds: float
    seed: int
    neighbours: tuple[int, ...]
    log: Path


@dataclass(frozen=True, slots=True)
class Calibration:
    """A profile, and the steps that it was fitted to."""

    profile: EngineProfile
    samples: list[Sample]
    busy: float
    """Wall time over CPU time of all steps: above 1, others used the machine."""


def calibrate(settings: Settings, show: Show) -> Calibration:
    """Measure and fit.

    Raises:
        CalibrationError: The engine broke, or follows rules that we do not know.
    """
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        engine = stack.enter_context(_started(settings.config, settings.log))
        loaded = engine.wait(Loaded, _scaled(show, 0.0, 0.2))
        info = loaded.info
        engine.tell(Measure(settings.seconds, settings.seed))
        share = 0.95 if not settings.neighbours else 0.7
        measured = engine.wait(Measured, _scaled(show, 0.2, share))
        contention = _contention(settings, engine, stack, _scaled(show, share, 0.98))
    show(Report("fitting", 0.98))
    rested = [one for one in measured.steps if one.rest_ms]
    others = [one for one in measured.steps if not one.rest_ms]
    clock = _clock(info, settings.config, others)
    samples = _samples(others, clock)
    fitted = fit_step_time(samples, info.graph_sizes, shared=info.device == "cpu")
    intakes = [cpu if clock == "cpu" else wall for wall, cpu in measured.intakes]
    profile = EngineProfile(
        name=settings.name,
        step_time=fitted.step_time,
        context=settings.context or info.max_model_len,
        kv_bytes_per_token=info.kv_token_bytes,
        block_size=info.block_size or 16,
        source=f"anyserve calibrate on {info.accelerator or _processor()}",
        load_s=round(loaded.load_s, 1),
        intake_us=round(statistics.median(intakes) / 1000, 1),
        cooling=_cooling(fitted, rested, clock),
        shape_us=round(fitted.shape_ps / _PS_PER_US, 1),
        residuals=fitted.residuals,
        contention=contention,
        kv_tokens=info.kv_tokens if info.device != "cpu" else 0,
        max_num_batched_tokens=info.max_num_batched_tokens,
        async_scheduling=info.async_scheduling,
        ranges=fitted.ranges,
        quality=fitted.quality,
        machine=_machine(info, load_before),
        versions=_versions(info),
        engine=_engine(settings.config, info, clock),
    )
    show(Report("done", 1.0))
    return Calibration(profile, samples, _busy(others))


class _Engine:
    """An engine in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def tell(self, command: Command) -> None:
        """Give it something to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")
        self._process.stdin.flush()

    def wait(self, kind: type[_A], show: Show) -> _A:
        """Its next answer of this kind; what comes before is progress.

        Raises:
            CalibrationError: It ended, or said that it cannot go on.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = msgspec.json.decode(line, type=Answer)
            if isinstance(answer, kind):
                return answer
            match answer:
                case Broken(message, code, hint):
                    raise CalibrationError(message, code=code, hint=hint)
                case Loading(stage, fraction):
                    show(Report(stage, fraction))
                case Measuring(wave, fraction, steps):
                    show(Report(f"{steps} steps, {wave}", fraction))
        raise CalibrationError(f"The engine ended.\n{_tail(self._log)}", code="calibration_engine")


@contextmanager
def _started(config: EngineConfig, log: Path) -> Iterator[_Engine]:
    command = [sys.executable, "-m", "anyserve.runtime.calibrate.child", str(log)]
    env = {**os.environ, **allocator_settings(os.environ)}
    with (
        tempfile.TemporaryDirectory(prefix="anyserve-") as temp,  # vLLM leaves things behind in it
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**env, "TMPDIR": temp},
        ) as process,
    ):
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(config) + b"\n")
            process.stdin.flush()
            yield _Engine(process, log)
        finally:
            process.kill()  # it holds nothing that others need


def _contention(
    settings: Settings, engine: _Engine, stack: ExitStack, show: Show
) -> tuple[tuple[int, float], ...]:
    """How many times as long a step takes beside others: (engines in all, factor)."""
    found: list[tuple[int, float]] = []
    alone: float | None = None
    engines = 1
    for count in settings.neighbours:
        if alone is None:
            alone = _probed(engine, show)
        while engines < count:
            show(Report(f"starting neighbour {engines}", len(found) / len(settings.neighbours)))
            other = stack.enter_context(_started(settings.config, settings.log))
            other.wait(Loaded, show)
            other.tell(Spin())
            other.wait(Spinning, show)
            engines += 1
        found.append((count, round(max(1.0, _probed(engine, show) / alone), 3)))
    return tuple(found)


def _probed(engine: _Engine, show: Show) -> float:
    """Median time of a step that only decodes (or of any, where none does), in nanoseconds."""
    engine.tell(Probe(_PROBE_S))
    steps = engine.wait(Measured, show).steps
    decodes = [one.wall_ns for one in steps if not one.prefills]
    return statistics.median(decodes or [one.wall_ns for one in steps])


def _scaled(show: Show, start: float, end: float) -> Show:
    def scaled(report: Report) -> None:
        show(Report(report.stage, start + (end - start) * report.fraction))

    return scaled


# --- what the profile says of where it comes from ----------------------------------------------


def _clock(info: EngineInfo, config: EngineConfig, steps: list[MeasuredStep]) -> str:
    """Which clock to believe. A one-thread CPU engine computes all the time of a step, so on a busy
    machine its CPU time says how long the step takes when nobody disturbs it."""
    alone = info.device == "cpu" and config.threads == 1
    return "cpu" if alone and _busy(steps) > _BUSY_RATIO else "wall"


def _samples(steps: list[MeasuredStep], clock: str) -> list[Sample]:
    return [
        Sample(
            one.work,
            1000 * (one.cpu_ns if clock == "cpu" else one.wall_ns),
            one.held_out,
            one.new_shape,
        )
        for one in steps
    ]


def _cooling(
    fitted: Fitted, rested: list[MeasuredStep], clock: str
) -> tuple[tuple[int, float], ...]:
    """How much longer steps took that found the engine idle, by how long it had been."""
    return tuple(
        (ms, _late_us(fitted, _samples([one for one in rested if one.rest_ms == ms], clock)))
        for ms in sorted({one.rest_ms for one in rested})
    )


def _late_us(fitted: Fitted, samples: list[Sample]) -> float:
    errors = relative_errors(fitted.step_time, samples, fitted.shape_ps)
    late = [-error * one.time_ps for error, one in zip(errors, samples, strict=True)]
    return round(max(0.0, statistics.median(late)) / _PS_PER_US, 1)


def _busy(steps: list[MeasuredStep]) -> float:
    return sum(one.wall_ns for one in steps) / max(1, sum(one.cpu_ns for one in steps))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _machine(info: EngineInfo, load: float) -> dict[str, str]:
    gpu = {"gpu": info.accelerator} if info.accelerator else {}
    return {
        **gpu,
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": f"{load:.1f}",
    }


def _versions(info: EngineInfo) -> dict[str, str]:
    return {
        "anyserve": importlib.metadata.version("anyserve"),
        "engine": f"{info.kind.value} {info.version}".strip(),
        "python": platform.python_version(),
    }


def _engine(config: EngineConfig, info: EngineInfo, clock: str) -> dict[str, str]:
    return {
        "device": info.device,
        "threads": str(config.threads),
        "dtype": config.dtype,
        "max_num_seqs": str(info.max_num_seqs),
        "max_num_batched_tokens": str(info.max_num_batched_tokens),
        "max_model_len": str(info.max_model_len),
        "clock": clock,
    }


def _tail(log: Path) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
    except OSError:
        return ""
