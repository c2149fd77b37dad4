"""Where builds lie: one folder each, named by the state of the sources that it was made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import platformdirs

NOTE: Final = "build.json"
KEPT: Final = 4
"""Builds that are kept: of other checkouts, branches and Pythons."""


@dataclass(frozen=True, slots=True)
class Build:
    """A finished build. `modules`: their files; `group`: the one that holds the code of all."""

    key: str
    group: str
    modules: Mapping[str, str]
    mypy: str
    seconds: float
    tuned: bool = False
    """Whether it was laid out for what simulations do (`tuning.py`)."""


class Store:
    """All builds of this user."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the build of this key lies, or would."""
        return self.root / key

    def find(self, key: str) -> Build | None:
        """The build of this key, if there is a whole one."""
        try:
            told = json.loads((self.folder(key) / NOTE).read_bytes())
            build = Build(**told)
        except (OSError, ValueError, TypeError):
            return None
        return build if build.key == key else None

    def keys(self) -> list[str]:
        """All whole builds, the newest first."""
        if not self.root.is_dir():
            return []
        notes = [folder / NOTE for folder in self.root.iterdir() if (folder / NOTE).is_file()]
        notes.sort(key=lambda note: note.stat().st_mtime_ns, reverse=True)
        return [note.parent.name for note in notes]

    def add(self, build: Build, made: Path) -> None:
        """Take over a folder with a build, in one move; the oldest of too many go."""
        (made / NOTE).write_text(json.dumps(asdict(build), indent=1), encoding="utf-8")
        folder = self.folder(build.key)
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
        for key in self.keys()[KEPT:]:
            shutil.rmtree(self.folder(key), ignore_errors=True)

    def remove_all(self) -> int:
        """Remove every build; how many there were."""
        count = len(self.keys())
        shutil.rmtree(self.root, ignore_errors=True)
        return count


def user_store() -> Store:
    """The builds of this user, in the cache as the system has it."""
    return Store(platformdirs.user_cache_path("anyserve", appauthor=False) / "compiled")
