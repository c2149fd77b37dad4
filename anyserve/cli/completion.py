"""What a shell can complete: scenario files, runs, clusters, codes. Never fails, never slow."""

from __future__ import annotations

import os
from pathlib import Path

from anyserve.errors import AnyServeError


def complete_scenario(incomplete: str) -> list[str]:
    """Scenario files here and under `scenarios/`, or what the typed path leads to."""
    typed = Path(incomplete)
    folders = [typed.parent] if "/" in incomplete else [Path("scenarios"), Path()]
    found = [
        str(path)
        for folder in folders
        for pattern in ("*.yaml", "*.yml")
        for path in sorted(folder.glob(pattern))
    ]
    return [name for name in found if name.startswith(incomplete) or incomplete in Path(name).name]


def complete_run(incomplete: str) -> list[str]:
    """Ids of runs, newest first."""
    from anyserve.cli.settings import load_settings  # noqa: PLC0415 - only when a shell asks
    from anyserve.telemetry.runs import LATEST, run_ids  # noqa: PLC0415

    try:
        root = Path(str(load_settings().value("runs")))
    except AnyServeError:
        return []
    return [name for name in [LATEST, *reversed(run_ids(root))] if name.startswith(incomplete)]


def complete_cluster(incomplete: str) -> list[str]:
    """Names of the clusters that run."""
    from anyserve.runtime.clusters import state_dir  # noqa: PLC0415 - only when a shell asks

    names = sorted(path.stem for path in state_dir(os.environ).glob("*.json"))
    return [name for name in names if name.startswith(incomplete)]


def complete_replica(incomplete: str) -> list[str]:
    """Ids of the newest running cluster's replicas."""
    return [name for name in _replicas() if name.startswith(incomplete)]


def complete_process(incomplete: str) -> list[str]:
    """The same, and their workers."""
    names = [name for one in _replicas() for name in (one, f"{one}.worker")]
    return [name for name in names if name.startswith(incomplete)]


def _replicas() -> list[str]:
    """Read from the newest cluster's file, which says what runs."""
    import msgspec  # noqa: PLC0415 - only when a shell asks

    from anyserve.runtime.clusters import ClusterRecord, state_dir  # noqa: PLC0415

    try:
        files = sorted(state_dir(os.environ).glob("*.json"), key=lambda path: path.stat().st_mtime)
        record = msgspec.json.decode(files[-1].read_bytes(), type=ClusterRecord)
    except (OSError, IndexError, msgspec.MsgspecError):
        return []
    words = [process.name.split() for process in record.processes]
    return sorted(word[1] for word in words if word[0] == "replica")


def complete_model(incomplete: str) -> list[str]:
    """Names of the built-in models."""
    from anyserve.runtime.models.catalog import BUILTIN_MODELS  # noqa: PLC0415

    return [name for name in sorted(BUILTIN_MODELS) if name.startswith(incomplete)]
