"""What a run was meant to be: its phases, its traffic, its faults and what is expected of it.

Read from the run directory, where the run left it before it began; a screen that joins from
elsewhere shows what the events say and nothing of what is still to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from anyserve.core.spec import ClusterSpec, Expectation, FaultSpec
from anyserve.telemetry.runs import RunDirectory
from anyserve.telemetry.summary import Slo

PLAN_FILE = "plan.json"
_NS_PER_S = 1e9
T = TypeVar("T")


class PlannedPhase(msgspec.Struct, frozen=True):
    """A phase of the traffic, in nanoseconds from the start of the run."""

    name: str
    start_ns: int
    end_ns: int


class _Request(msgspec.Struct, frozen=True):
    at_ns: int


class _Traffic(msgspec.Struct, frozen=True):
    phases: tuple[PlannedPhase, ...] = ()
    requests: tuple[_Request, ...] = ()


class _Resolved(msgspec.Struct, frozen=True):
    file: str = ""
    seed: int | None = None
    cluster: ClusterSpec | None = None
    expectations: tuple[Expectation, ...] = ()
    faults: tuple[FaultSpec, ...] = ()
    slo: Mapping[str, Slo] = {}
    machine: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class RunPlan:
    """`offers_ns`: when each request is to be offered, from the start of the run, ascending."""

    file: str = ""
    seed: int | None = None
    phases: tuple[PlannedPhase, ...] = ()
    offers_ns: tuple[int, ...] = ()
    faults: tuple[FaultSpec, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    slo: Mapping[str, Slo] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    cluster: ClusterSpec | None = None

    @property
    def delegation_limit(self) -> int | None:
        """How often a request may be delegated; None where nobody knows."""
        return None if self.cluster is None else self.cluster.delegation.limit

    @property
    def length_s(self) -> float:
        """How long the traffic is planned to last; 0 where nothing is known."""
        return self.phases[-1].end_ns / _NS_PER_S if self.phases else 0.0


def read_run_plan(run: Path) -> RunPlan:
    """The plan in a run directory; what is not there, or of another make, is left empty."""
    resolved = _read(RunDirectory(run).scenario, _Resolved) or _Resolved()
    traffic = _read(run / PLAN_FILE, _Traffic) or _Traffic()
    return RunPlan(
        file=resolved.file,
        seed=resolved.seed,
        phases=traffic.phases,
        offers_ns=tuple(sorted(request.at_ns for request in traffic.requests)),
        faults=resolved.faults,
        expectations=resolved.expectations,
        slo=resolved.slo,
        machine=resolved.machine,
        cluster=resolved.cluster,
    )


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
