"""Users' own classes, named `pkg.mod:Class` in a scenario.

Only a run imports them: checking, showing and planning a scenario must not execute its code. A
module beside the scenario file is found too, and wins over an installed one of the same name.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from anyserve.errors import AnyServeError, UsageError

FORESEEN = (Exception, SystemExit)
"""What a user's code may raise and still end as one sentence."""
_PACKAGE = Path(__file__).parents[1]


class PluginError(AnyServeError):
    """A class that a scenario names cannot be used: not found, it raises, or has another shape."""

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

    def make(self, *arguments: object) -> Any:
        """Call it.

        Raises:
            PluginError: it is no class, or it raises.
        """
        if not callable(self.factory):
            kind = type(self.factory).__name__
            message = f"'{self.name}' is no class but a value of type {kind}"
            raise PluginError(message, code="plugin_shape", hint=f"see {self.origin}")
        try:
            return self.factory(*arguments)
        except FORESEEN as error:
            raise failed(f"making '{self.name}'", error) from error


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
    origin = getattr(module, "__file__", None) or "a built-in module"
    beside = scenario_dir is not None and Path(origin).is_relative_to(scenario_dir.resolve())
    factory = getattr(module, attribute, None)
    if factory is None:
        message = f"the module '{module_name}' ({origin}) has no '{attribute}'"
        hint = _hint(module, attribute, None if beside else scenario_dir)
        raise PluginError(message, code="plugin_missing", hint=hint)
    return Plugin(name, factory, origin, beside)


def _hint(module: ModuleType, attribute: str, elsewhere: Path | None) -> str:
    """How to mend a missing class; `elsewhere`: the scenario's directory, if not the module's."""
    top = module.__name__.partition(".")[0]
    if elsewhere is not None and (elsewhere / f"{top}.py").exists():
        return f"the {top}.py beside the scenario is hidden by it; give yours another name"
    known = sorted(
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    )
    near = get_close_matches(attribute, known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"it has {', '.join(known[:12])}" if known else "it has no class at all"


def _import(name: str, module_name: str, scenario_dir: Path | None) -> ModuleType:
    place = str(scenario_dir.resolve()) if scenario_dir is not None else None
    if place is not None:
        sys.path.insert(0, place)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(module_name)
    except FORESEEN as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            where = f" nor in {place}" if place else ""
            message = f"there is no module '{module_name}' installed{where}"
            hint = "install it, or put it beside the scenario file"
            raise PluginError(message, code="plugin_missing", hint=hint) from error
        raise failed(f"importing '{name}'", error) from error
    finally:
        if place is not None:
            sys.path.remove(place)


def failed(doing: str, error: BaseException) -> PluginError:
    """Somebody else's error as one of ours: what it was, and the line that raised it."""
    theirs = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != importlib.__file__
        and not frame.filename.startswith("<frozen")
        and not Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    hint = f"raised at {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    return PluginError(f"{doing} failed: {said}", code="plugin_failed", hint=hint)
