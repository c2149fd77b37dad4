"""`anyserve calibrate`: from the words of the command to a profile on disk."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from anyserve.cli.calibration_plot import draw_calibration
from anyserve.cli.diagnostics import Diagnostics, ExitCode
from anyserve.cli.modelling import prepare
from anyserve.cli.session import Session
from anyserve.core.engine.profile import EngineProfile
from anyserve.core.spec import EngineSpec
from anyserve.errors import MissingDependencyError, UsageError
from anyserve.runtime.calibrate.messages import CalibrationError
from anyserve.runtime.calibrate.run import Report, Settings, Show, calibrate
from anyserve.runtime.engines.base import EngineKind, Task
from anyserve.runtime.engines.config import engine_config
from anyserve.runtime.engines.detect import detect
from anyserve.runtime.models import ResolvedModel
from anyserve.workload.profiles import load_profile

if TYPE_CHECKING:
    from anyserve.runtime.calibrate.run import Calibration

SCHEMA: Final = "anyserve.calibration/1"
_CONTEXT: Final = 2048
_POOR_ERROR: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of the command."""

    model: str
    out: Path | None
    name: str | None
    seconds: float
    max_num_seqs: int
    max_num_batched_tokens: int | None
    max_model_len: int | None
    kv_cache_gib: float
    threads: int
    gpus: float
    dtype: str
    options: list[str]
    engine: str
    contention: tuple[int, ...]
    seed: int
    as_json: bool


def run_calibrate(session: Session, request: Request) -> int:
    """Measure, fit, write, show.

    Raises:
        MissingDependencyError: vLLM or the model is not there.
        CalibrationError: the engine cannot be measured.
    """
    found_here = detect()
    if request.engine == EngineKind.VLLM and found_here.engine is not EngineKind.VLLM:
        raise MissingDependencyError(
            f"There is no vLLM to measure: {found_here.reason.partition(':')[0]}.",
            code="no_vllm",
            hint="Install anyserve[cpu] or [gpu]; --engine model tries the command without.",
        )
    model = prepare(request.model, session.diagnostics)
    path = session.cwd / (request.out or Path(f"{_file_name(request)}.profile.json"))
    with _log_of(request) as log, _progress(session.diagnostics) as show:
        found = calibrate(_settings(request, model, log), show)
    text = profile_text(found.profile)
    path.write_text(text)
    load_profile(str(path))  # what we wrote can be read
    if request.as_json:
        session.output.json(_answer(found, path))
    else:
        session.output.draw(lambda console: draw_calibration(console, found))
        session.output.line(f"profile  {path}")
        session.output.line(f"use it   engine: {{ kind: model, profile: {path.name} }}")
    _warn(session.diagnostics, found)
    return ExitCode.OK


@contextmanager
def _log_of(request: Request) -> Iterator[Path]:
    """The engine's log; it stays, and is named, only where the engine could not be measured."""
    handle, name = tempfile.mkstemp(f"-{_file_name(request)}.log", "anyserve-calibrate-")
    os.close(handle)
    try:
        yield Path(name)
    except CalibrationError as error:
        hint = f"{error.hint} The engine's log is {name}".strip()
        raise CalibrationError(error.message, code=error.code, hint=hint) from error
    except BaseException:
        Path(name).unlink()
        raise
    Path(name).unlink()


def profile_text(profile: EngineProfile) -> str:
    """A profile as a file: JSON that a person can read."""
    return json.dumps(msgspec.to_builtins(profile), indent=2) + "\n"


def _settings(request: Request, model: ResolvedModel, log: Path) -> Settings:
    trained = _trained_context(model)
    task = Task(model.task.value)
    context = request.max_model_len
    if task is Task.GENERATE:  # an encoder's own bound is not in its config.json: vLLM knows it
        context = context or min(trained or _CONTEXT, _CONTEXT)
    spec = EngineSpec(
        kind=request.engine,
        model=request.model,
        task="embed" if task is Task.EMBED else "generate",
        max_model_len=context,
        max_num_seqs=request.max_num_seqs,
        max_num_batched_tokens=request.max_num_batched_tokens,
        kv_cache_gib=request.kv_cache_gib,
        gpus=request.gpus,
        threads=request.threads,
        dtype=request.dtype,
        options=_options(request.options),
    )
    return Settings(
        name=request.name or _file_name(request),
        config=engine_config(spec, model, seed=request.seed),
        context=trained if task is Task.GENERATE else None,
        seconds=request.seconds,
        seed=request.seed,
        neighbours=request.contention,
        log=log,
    )


def _options(pairs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"'{pair}' is not NAME=VALUE", code="bad_option")
        found[name] = yaml.safe_load(value)
    return found


def _trained_context(model: ResolvedModel) -> int | None:
    try:
        config = json.loads((Path(model.path) / "config.json").read_text())
    except (OSError, ValueError):
        return None
    length = config.get("max_position_embeddings")
    return int(length) if length else None


def _file_name(request: Request) -> str:
    return (request.name or request.model.rstrip("/").rpartition("/")[2]).replace("/", "-")


def _answer(found: Calibration, path: Path) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "path": str(path),
        "busy": round(found.busy, 3),
        "profile": msgspec.to_builtins(found.profile),
    }


def _warn(diagnostics: Diagnostics, found: Calibration) -> None:
    quality = found.profile.quality
    assert quality is not None
    if found.profile.engine["clock"] == "cpu":
        diagnostics.warn(
            f"The machine was busy: a step took {found.busy:.2f} times its CPU time. The profile "
            "is of CPU time; measure again on a quiet machine."
        )
    if quality.median_error > _POOR_ERROR:
        diagnostics.warn(
            f"Half of the held-out steps are off by more than {quality.median_error:.0%}: "
            "the profile predicts this engine badly."
        )


@contextmanager
def _progress(diagnostics: Diagnostics) -> Iterator[Show]:
    if not diagnostics.terminal.lively(diagnostics.stream):
        yield _Lines(diagnostics)
        return
    from rich.progress import (  # noqa: PLC0415 - only where a bar is drawn
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    console = diagnostics.terminal.console(diagnostics.stream)
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda report: bars.update(task, completed=report.fraction, description=report.stage)


class _Lines:
    """Progress where nothing can be drawn over: a line for each tenth."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self._diagnostics = diagnostics
        self._tenth = -1

    def __call__(self, report: Report) -> None:
        tenth = int(report.fraction * 10)
        if tenth > self._tenth:
            self._tenth = tenth
            self._diagnostics.say(f"calibrate {report.fraction:.0%} {report.stage}")
