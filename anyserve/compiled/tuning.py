"""Compiling for what simulations do: a build counts which way its code goes while one runs, and the
C compiler lays the next one out for that (profile-guided optimisation, by GCC)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from anyserve.compiled.sources import PACKAGE
from anyserve.compiled.store import Store
from anyserve.errors import AnyServeError, MissingDependencyError

TRAINING: Final = Path(__file__).parent / "training.yaml"
"""What is simulated meanwhile."""
_CACHE: Final = "cache"
_COUNTS: Final = "counts"


def need_gcc(command: Sequence[str]) -> None:
    """Others count in other ways.

    Raises:
        MissingDependencyError: the C compiler is not GCC.
    """
    asked = [*command, "-dM", "-E", "-x", "c", os.devnull]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    if "__GNUC__" not in told or "__clang__" in told:
        raise MissingDependencyError(
            f"only GCC compiles for what it saw, and {command[0]} is another compiler",
            code="no_gcc",
            hint="CC=gcc anyserve compile --tune, or leave --tune out",
        )


class Tuning:
    """One build's counting, in the folder where it is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts = folder / _COUNTS
        self.store = Store(folder / _CACHE / "anyserve" / "compiled")
        """Where the build that counts belongs: a user's store, for one run."""

    @property
    def counts(self) -> tuple[str, ...]:
        """What lets the compiler make libraries that count."""
        return (f"-fprofile-generate={self._counts}", "-fprofile-update=single")

    @property
    def uses(self) -> tuple[str, ...]:
        """What lets it use their counts. Code that was not gone through is compiled as always."""
        counts = f"-fprofile-use={self._counts}"
        return (counts, "-fprofile-partial-training", "-Wno-missing-profile")

    def watch(self) -> None:
        """Simulate with the libraries that count.

        Raises:
            AnyServeError: the simulation failed, or ran without them.
        """
        runs = self._folder / "runs"
        words = ["sim", str(TRAINING), "--sample", "0.2", "--ui", "none", "--runs", str(runs)]
        environ = os.environ | {
            "XDG_CACHE_HOME": str(self._folder / _CACHE),
            "PYTHONPATH": str(PACKAGE.parent),
            "ANYSERVE_COMPILED": "1",
        }
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "anyserve.cli", *words],
            env=environ, cwd=self._folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ended.returncode or not list(self._counts.glob("*.gcda")):
            said = ended.stderr.strip() or "it did not run compiled"
            raise AnyServeError(
                f"the simulation to be watched failed:\n{said}",
                code="tuning_failed",
                hint="leave --tune out, and please report it",
            )
