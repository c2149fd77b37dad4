"""Which paths of `summary.json` an expectation can name: known before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from anyserve.core.messages import Code, DelegateReason
from anyserve.core.spec import Expectation
from anyserve.workload.problems import nearest

TIMES: Final = ("ttft", "tpot", "itl", "e2e", "queue")
STATISTICS: Final = ("count", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")
OUTCOMES: Final = (
    "offered",
    "completed",
    "failed",
    "rejected",
    "cancelled",
    "expired",
    "unresolved",
)
_GROUPS: Final = {
    "requests": OUTCOMES,
    "delegations": ("total", "requests", "max_per_request"),
    "recoveries": ("total",),
    "returns": ("total",),
    "refusals": ("total",),
    "tokens": ("prompt", "output"),
    "throughput": ("offered_per_s", "completed_per_s", "output_tokens_per_s"),
    "goodput": ("share", "per_s"),
    "hops": ("mean", "max"),
    **dict.fromkeys(TIMES, STATISTICS),
}
_PLAIN: Final = ("duration_s", "events_missing", "planned_requests", "faults", "policy_failures")
_CAPABILITY_GROUPS: Final = ("requests", "tokens", "goodput", *TIMES)
_REPLICA_COUNTS: Final = (
    "concurrency",
    "started",
    "completed",
    "failed",
    "delegated",
    "refused",
    "returned",
    "lost",
    "output_tokens",
    "worker_exits",
    "running_mean",
    "running_max",
    "waiting_max",
    "busy_share",
)
_REPLICA_GROUPS: Final = ("ttft", "e2e")
_EDGE: Final = re.compile(r"[a-z0-9.]+->[a-z0-9.]+")


def fixed_paths() -> Iterator[str]:
    """The paths that every summary has."""
    yield from _PLAIN
    for group, names in _GROUPS.items():
        yield from (f"{group}.{name}" for name in names)
    yield from (f"requests.by_reason.{code.value}" for code in Code)
    yield from (f"delegations.by_reason.{reason.value}" for reason in DelegateReason)


def capability_paths(capability: str) -> Iterator[str]:
    """The paths of one capability."""
    prefix = f"capabilities.{capability}"
    yield f"{prefix}.delegated"
    for group in _CAPABILITY_GROUPS:
        yield from (f"{prefix}.{group}.{name}" for name in _GROUPS[group])
    yield from (f"{prefix}.requests.by_reason.{code.value}" for code in Code)


def replica_paths(replica: str) -> Iterator[str]:
    """The paths of one replica."""
    prefix = f"replicas.{replica}"
    yield from (f"{prefix}.{name}" for name in _REPLICA_COUNTS)
    for group in _REPLICA_GROUPS:
        yield from (f"{prefix}.{group}.{name}" for name in _GROUPS[group])


class KnownMetrics:
    """The metrics of one scenario, which names its capabilities and replicas."""

    def __init__(self, capabilities: set[str], replicas: set[str]) -> None:
        self._capabilities = capabilities
        self._replicas = replicas
        self._paths = set(fixed_paths())
        for name in capabilities:
            self._paths.update(capability_paths(name))

    def __contains__(self, path: str) -> bool:
        """Whether an expectation may name `path`."""
        if path in self._paths:
            return True
        edge = path.removeprefix("delegations.by_edge.")
        if edge != path:
            ends = edge.split("->")
            return _EDGE.fullmatch(edge) is not None and set(ends) <= self._capabilities
        replica = self._replica_of(path)
        return replica is not None and path in set(replica_paths(replica))

    def lacking(self, expectation: Expectation) -> list[str]:
        """What an expectation names as metrics that are none."""
        paths = [expectation.metric]
        if isinstance(expectation.value, str):
            paths.append(expectation.value)
        return [path for path in paths if path not in self]

    def hint(self, path: str) -> str:
        """How to mend a path that is not known."""
        if path.startswith("delegations.by_edge."):
            known = ", ".join(sorted(self._capabilities))
            return f"an edge is CAPABILITY->CAPABILITY, of {known}"
        known_paths = set(self._paths)
        words = path.split(".")
        if words[0] == "replicas" and len(words) > 1:
            if words[1] not in self._replicas:
                return f"no replica '{words[1]}'; {nearest(words[1], self._replicas)}".rstrip("; ")
            known_paths.update(replica_paths(words[1]))
        close = get_close_matches(path, sorted(known_paths), n=1, cutoff=0.5)
        return f"did you mean '{close[0]}'?" if close else "docs/scenarios.md lists the metrics"

    def _replica_of(self, path: str) -> str | None:
        words = path.split(".")
        is_known = words[0] == "replicas" and len(words) > 1 and words[1] in self._replicas
        return words[1] if is_known else None
