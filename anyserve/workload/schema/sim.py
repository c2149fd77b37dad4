"""The `sim` section: what a simulation is told of things that a live cluster simply has."""

from __future__ import annotations

from pydantic import Field

from anyserve.workload.schema.types import Duration, Section


class Network(Section):
    """The way between two processes, broker included."""

    latency: Duration = 500_000
    """How long a message takes at least."""
    jitter: Duration = 0
    """Mean of what comes on top, exponentially distributed."""
    drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of all messages that is lost."""
    duplicate: float = Field(default=0.0, ge=0, lt=1)
    """Share of all messages that arrives twice."""
    reorder: bool = False
    """Whether messages of one sender to one receiver may overtake each other."""


class Sim(Section):
    """Read by `anyserve sim` only."""

    network: Network = Network()
    """Latency and faults of the network."""
    handover: Duration = 1_000_000
    """From a replica to the engine of its worker, which is another process."""
    scheduler_cost: Duration = 0
    """Processor time of the scheduler per message; it handles one at a time."""
    boot: Duration = 1_000_000_000
    """From the start of a process until it is connected."""
    load: Duration = 0
    """From the start of a worker until its engine is ready, where its profile does not say."""
    cores: int = Field(default=0, ge=0, le=4096)
    """Cores of the one machine that all engines share; 0: each has enough for itself."""
    step_jitter: bool = False
    """Whether steps scatter around their formula, as they did when they were measured."""
