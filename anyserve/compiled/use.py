"""Letting a process run the compiled modules in place of their sources."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

from anyserve.compiled.sources import compiled_modules, digest
from anyserve.compiled.store import Build, Store, user_store

SWITCH: Final = "ANYSERVE_COMPILED"
_OFF: Final = frozenset({"0", "no", "off", "false"})


class Standing(Enum):
    """Whether compiled modules are used, or why not."""

    IN_USE = "in use"
    SWITCHED_OFF = "switched off"
    NEVER_BUILT = "not built"
    STALE = "built from other sources"
    TOO_LATE = "modules are loaded already"
    BROKEN = "does not load here"


class CompiledFinder(MetaPathFinder):
    """Finds the modules of one build, and nothing else."""

    def __init__(self, build: Build, folder: Path) -> None:
        self._files = {name: folder / path for name, path in build.modules.items()}

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        file = self._files.get(fullname)
        if file is None:
            return None
        loader = ExtensionFileLoader(fullname, str(file))
        return spec_from_file_location(fullname, file, loader=loader)


def switch_on(environ: Mapping[str, str] = os.environ, store: Store | None = None) -> Standing:
    """From here on, let imports find the compiled modules, if they are those of the sources.

    Call it before any of them is imported: a process runs all of them compiled, or none.
    """
    if in_use():
        return Standing.IN_USE
    if any(name in sys.modules for name in compiled_modules()):
        return Standing.TOO_LATE
    standing, build = look(environ, store)
    if build is None:
        return standing
    finder = CompiledFinder(build, (store or user_store()).folder(build.key))
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(build.group)
    except ImportError:
        sys.meta_path.remove(finder)
        return Standing.BROKEN
    return Standing.IN_USE


def look(
    environ: Mapping[str, str] = os.environ, store: Store | None = None
) -> tuple[Standing, Build | None]:
    """What `switch_on` would find in a new process; with `IN_USE`, the build."""
    if environ.get(SWITCH, "").lower() in _OFF:
        return Standing.SWITCHED_OFF, None
    store = store or user_store()
    keys = store.keys()
    if not keys:
        return Standing.NEVER_BUILT, None
    build = store.find(digest())
    if build is None or set(compiled_modules()) - set(build.modules):
        return Standing.STALE, None
    return Standing.IN_USE, build


def in_use() -> bool:
    """Whether this process runs compiled modules."""
    return any(isinstance(finder, CompiledFinder) for finder in sys.meta_path)
