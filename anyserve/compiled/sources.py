"""Which modules are compiled, and what names the state of their sources."""

from __future__ import annotations

import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent.parent
"""The sources at hand."""

TAKEN: Final = (
    "core",
    "sim",
    "telemetry/gaps.py",
    "telemetry/replica_names.py",
    "telemetry/request_table.py",
    "telemetry/tally.py",
    "workload/arrivals.py",
    "workload/course.py",
    "workload/drawing.py",
    "workload/lengths.py",
)
"""What is compiled: modules, and packages with all in them."""
LEFT_OUT: Final = frozenset(
    {
        # msgspec's classes: as such they gain nothing, and compiled they forget what their fields
        # hold beyond the outermost type, so that they would be decoded wrongly. Those that nothing
        # encodes in a simulation are compiled as plain ones (`plain.py`).
        "core/events.py",
        "core/objects.py",
        "core/parts.py",
        "core/policies.py",
        "core/scheduler/inputs_log.py",
        "core/spec.py",
        "core/placement.py",
        "core/policy_trial.py",
        "core/engine/profile.py",
        "core/engine/step_time.py",
        # And others:
        "core/engine/fit.py",  # numpy's
        "sim/matching.py",  # numpy's
        "sim/trial.py",  # sent by name to other processes
    }
)
SEEN: Final = ("__init__.py", "compiled", "core", "errors.py", "sim", "telemetry", "workload")
"""What the compiled modules are made from: themselves, and all that the compiler reads of ours."""


def compiled_modules(package: Path = PACKAGE) -> dict[str, Path]:
    """The modules that are compiled, and their files below the package; in order of name."""
    found = {}
    for path in _files(package, TAKEN):
        relative = path.relative_to(package)
        if path.name != "__init__.py" and relative.as_posix() not in LEFT_OUT:
            found[".".join((package.name, *relative.with_suffix("").parts))] = relative
    return found


def source_files(package: Path = PACKAGE) -> list[Path]:
    """All files that the compiler is shown."""
    return list(_files(package, SEEN))


def digest(package: Path = PACKAGE) -> str:
    """Names the state of all these sources, on this Python: another one needs another build."""
    found = hashlib.blake2b(digest_size=10)
    for part in (sys.version, sysconfig.get_config_var("EXT_SUFFIX"), platform.machine()):
        found.update(f"{part}\0".encode())
    for path in source_files(package):
        text = path.read_bytes()
        found.update(f"{path.relative_to(package).as_posix()}\0{len(text)}\0".encode())
        found.update(text)
    return found.hexdigest()


def _files(package: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = package / name
        if path.is_dir():
            yield from sorted(path.rglob("*.py"))
        else:
            yield path
