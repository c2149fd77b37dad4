"""The whole of a scenario file, version 1."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from anyserve.workload.schema.cluster import Cluster
from anyserve.workload.schema.faults import Fault
from anyserve.workload.schema.ingress import Ingress
from anyserve.workload.schema.sim import Sim
from anyserve.workload.schema.traffic import Traffic
from anyserve.workload.schema.types import CapabilityName, Id, PositiveDuration, Section


class SloTimes(Section):
    """How fast an answer must be to count as good."""

    ttft: PositiveDuration | None = None
    """Time to the first token."""
    tpot: PositiveDuration | None = None
    """Mean time per token after the first."""
    e2e: PositiveDuration | None = None
    """Time to the whole answer."""


class Slo(SloTimes):
    """For all capabilities, and for single ones."""

    capabilities: dict[CapabilityName, SloTimes] = Field(default_factory=dict)
    """Instead of the common times, for requests that ask for these."""


class ScenarioFile(Section):
    """An AnyServe scenario: a cluster, the traffic it gets, and what is expected of it."""

    version: Literal[1]
    """The version of this format."""
    name: Id
    """Names the cluster and its runs."""
    description: str = Field(default="", max_length=2000)
    """What this scenario shows."""
    cluster: Cluster
    """Capabilities, replicas, rules."""
    traffic: Traffic
    """Phases and streams."""
    faults: list[Fault] = Field(default_factory=list)
    """What goes wrong on purpose."""
    expect: list[str] = Field(
        default_factory=list, examples=[["requests.completed == requests.offered"]]
    )
    """Assertions on summary.json that decide the exit code: METRIC OP NUMBER-OR-METRIC."""
    slo: Slo = Slo()
    """What counts as goodput."""
    sim: Sim = Sim()
    """What a simulation is told of network and start-up."""
    ingress: Ingress | None = None
    """The front doors for clients; without this section none is opened."""
