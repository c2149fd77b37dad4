"""Models: made ready from packages, paths or hub ids; tokenizers; prompts of an exact length."""

from __future__ import annotations

from anyserve.runtime.models.catalog import BUILTIN_MODELS, BuiltinModel, ModelTask
from anyserve.runtime.models.resolve import ModelSource, ResolvedModel, resolve_model
from anyserve.runtime.models.store import ModelProgress, ModelStore

__all__ = [
    "BUILTIN_MODELS",
    "BuiltinModel",
    "ModelProgress",
    "ModelSource",
    "ModelStore",
    "ModelTask",
    "ResolvedModel",
    "resolve_model",
]
