"""The names that a file gives things, taken from its plain data.

So a replica that is wrong in itself still exists, and nobody who refers to it is told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyserve.workload.facts import replica_ids
from anyserve.workload.metrics import KnownMetrics
from anyserve.workload.schema import ScenarioFile


@dataclass(frozen=True, slots=True)
class Names:
    """`groups` are the entries of `cluster.replicas`, `replicas` the ids they come to."""

    capabilities: frozenset[str]
    groups: frozenset[str]
    replicas: frozenset[str]
    streams: frozenset[str]

    @classmethod
    def of(cls, file: ScenarioFile, raw: Any) -> Names:
        """The names of a file."""
        groups = _keys(raw, "cluster", "replicas")
        known = file.cluster.replicas
        ids = {one for name, replica in known.items() for one in replica_ids(name, replica)}
        return cls(
            capabilities=_keys(raw, "cluster", "capabilities"),
            groups=groups,
            replicas=frozenset(ids | (groups - known.keys())),
            streams=_keys(raw, "traffic", "streams"),
        )

    @property
    def metrics(self) -> KnownMetrics:
        """What an expectation may name."""
        return KnownMetrics(set(self.capabilities), set(self.replicas))


def _keys(raw: Any, *way: str) -> frozenset[str]:
    for part in way:
        raw = raw.get(part) if isinstance(raw, dict) else None
    return frozenset(raw) if isinstance(raw, dict) else frozenset()
