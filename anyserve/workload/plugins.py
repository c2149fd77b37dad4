"""Users' own classes, named `pkg.mod:Class` in a scenario.

Only a run imports them: checking, showing and planning a scenario must not execute its code. A
module beside the scenario file is found too, and wins over an installed one of the same name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from anyserve.errors import AnyServeError, UsageError


class PluginError(AnyServeError):
    """A class that a scenario names cannot be had: no such module, it raises, or no such class."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Plugin:
    """A class and where it came from. `beside_scenario`: found in the scenario's own directory."""

    name: str
    factory: Any
    origin: str
    beside_scenario: bool

    @property
    def said(self) -> str:
        """One line for the user, who should know whose code runs."""
        return f"{self.name} from {self.origin}"


def is_plugin_name(name: str) -> bool:
    """Whether `name` is `pkg.mod:Class` rather than something shipped."""
    module, colon, attribute = name.partition(":")
    words = [*module.split("."), attribute]
    return bool(colon) and all(word.isidentifier() for word in words)


def resolve_class(name: str, scenario_dir: Path | None = None) -> Plugin:
    """Import `pkg.mod:Class`.

    Raises:
        UsageError: the name has another shape.
        PluginError: it cannot be imported, or the module has nothing of that name.
    """
    if not is_plugin_name(name):
        raise UsageError(f"'{name}' is not pkg.mod:Class", code="plugin_name")
    module_name, _, attribute = name.partition(":")
    module = _import(name, module_name, scenario_dir)
    factory = getattr(module, attribute, None)
    if factory is None:
        known = [word for word in vars(module) if not word.startswith("_")]
        hint = f"it has {', '.join(sorted(known)[:12])}" if known else "the module is empty"
        message = f"the module '{module_name}' has no '{attribute}'"
        raise PluginError(message, code="plugin_missing", hint=hint)
    origin = getattr(module, "__file__", None) or "a built-in module"
    beside = scenario_dir is not None and Path(origin).is_relative_to(scenario_dir.resolve())
    return Plugin(name, factory, origin, beside)


def _import(name: str, module_name: str, scenario_dir: Path | None) -> ModuleType:
    place = str(scenario_dir.resolve()) if scenario_dir is not None else None
    if place is not None:
        sys.path.insert(0, place)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.startswith(error.name):
            where = f" nor in {place}" if place else ""
            message = f"there is no module '{module_name}' installed{where}"
            hint = "install it, or put it beside the scenario file"
            raise PluginError(message, code="plugin_missing", hint=hint) from error
        raise _failed(name, error) from error
    except Exception as error:  # a user's module may raise anything; it ends as one sentence
        raise _failed(name, error) from error
    finally:
        if place is not None:
            sys.path.remove(place)


def _failed(name: str, error: Exception) -> PluginError:
    message = f"importing '{name}' failed: {type(error).__name__}: {error}"
    return PluginError(message, code="plugin_failed")
