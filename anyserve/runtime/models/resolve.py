"""From the `model:` of a scenario to something an engine can load."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from anyserve.errors import MissingDependencyError
from anyserve.runtime.models import packages
from anyserve.runtime.models.catalog import (
    BUILTIN_MODELS,
    BuiltinModel,
    ModelTask,
    PackageLayout,
)
from anyserve.runtime.models.store import ModelProgress, ModelStore, Progress

_CONVERSION = 1  # raise when the conversion writes something else than before
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class ModelSource(StrEnum):
    """Where a model comes from."""

    LOCAL = "local"
    PACKAGE = "package"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that an engine can load."""

    path: str
    """A local folder, or a hub id that the engine itself downloads."""
    name: str
    """What the scenario called it."""
    task: ModelTask
    source: ModelSource

    @property
    def tokenizer_path(self) -> Path | None:
        """The local tokenizer.json, if there is one."""
        file = Path(self.path) / "tokenizer.json"
        return file if file.is_file() else None


def quiet(_progress: ModelProgress) -> None:
    """Take progress and show nothing."""


def resolve_model(
    name: str,
    progress: Progress = quiet,
    *,
    task: ModelTask | None = None,
    store: ModelStore | None = None,
) -> ResolvedModel:
    """Make the model `name` ready and say where it is.

    `name` is a built-in name, the path of a local model folder, or a hub id. `task` overrides what
    is known of the model. Blocks while a built-in model is converted (seconds, once per user).

    Raises:
        MissingDependencyError: No such model, or the package that carries it is not installed.
        StartError: The cache cannot be written.
    """
    if name in BUILTIN_MODELS:
        builtin = BUILTIN_MODELS[name]
        path = _builtin_path(builtin, store or ModelStore(), progress)
        return ResolvedModel(str(path), name, task or builtin.task, ModelSource.PACKAGE)
    wanted = task or ModelTask.GENERATE
    local = Path(name).expanduser()
    if (local / "config.json").is_file():
        return ResolvedModel(str(local.resolve()), name, wanted, ModelSource.LOCAL)
    if not local.exists() and _HUB_ID.fullmatch(name):
        return ResolvedModel(name, name, wanted, ModelSource.HUB)
    raise _unknown(name, local)


def _builtin_path(model: BuiltinModel, store: ModelStore, progress: Progress) -> Path:
    key = f"{model.name}-{_CONVERSION}"
    if model.layout is PackageLayout.GGUF and store.ready(key):
        return store.folder(key)  # works on after the package was removed
    member = packages.member_path(model)
    if model.layout is PackageLayout.DIRECTORY:
        progress(ModelProgress("ready", 1.0))
        return member
    from anyserve.runtime.models import gguf_llama  # noqa: PLC0415 - numpy, for a first use only

    source = f"{model.distribution} {packages.version(model)}"
    return store.get(key, source, partial(gguf_llama.convert, member), progress)


def _unknown(name: str, local: Path) -> MissingDependencyError:
    names = ", ".join(sorted(BUILTIN_MODELS))
    if local.is_dir():
        why, hint = "the folder has no config.json", "Point at a folder in Hugging Face layout."
    else:
        why = "no built-in model, folder or hub id of that name"
        hint = f"Built-in names: {names}. A hub id looks like owner/name."
    return MissingDependencyError(f"Model {name!r}: {why}.", code="model_unknown", hint=hint)
