"""The `faults` section: what goes wrong on purpose, and when."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field

from anyserve.workload.schema.types import Duration, Id, PositiveDuration, Section

FAULT_ACTIONS: Final = (
    "kill",
    "hang",
    "slow",
    "drain",
    "partition",
    "drop",
    "duplicate",
    "delay",
    "restart-broker",
    "restart-scheduler",
)
ENDING_ACTIONS: Final = frozenset(FAULT_ACTIONS) - {"kill", "restart-broker", "restart-scheduler"}
"""Those that can last for a while (`for`)."""


class OnProcess(Section):
    """The replica's own process, or its worker's; name one of them."""

    replica: Id | None = None
    """A replica's process."""
    worker: Id | None = None
    """The worker of this replica."""


class OnReplica(Section):
    """A replica."""

    replica: Id
    """Its id."""


class Slow(OnReplica):
    """Every step of its engine takes longer."""

    factor: float = Field(gt=1, le=1000)
    """How many times as long."""


class Lossy(OnReplica):
    """Messages from and to a replica."""

    share: float = Field(gt=0, le=1)
    """Share of its messages, 0 to 1."""


class Delay(OnReplica):
    """Messages from and to a replica arrive late."""

    by: PositiveDuration
    """How late."""
    jitter: Duration = 0
    """Up to this much more, at random."""


class Restart(Section):
    """A restart of a part there is only one of."""

    down: Duration = 0
    """How long it stays away."""


def _exactly_one_action(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [action]} for action in FAULT_ACTIONS]


class Fault(Section):
    """One fault: when, for how long, and exactly one action."""

    model_config = ConfigDict(json_schema_extra=_exactly_one_action)

    at: Duration
    """When, after the start of traffic."""
    for_: PositiveDuration | None = Field(default=None, alias="for")
    """How long it lasts; without it, to the end of the run. Not for kill and restarts."""
    kill: OnProcess | None = None
    """SIGKILL. A worker is replaced by its replica, a replica by the supervisor."""
    hang: OnProcess | None = None
    """The process stops answering."""
    slow: Slow | None = None
    """The engine computes more slowly."""
    drain: OnReplica | None = None
    """The replica takes no new work and finishes what it has."""
    partition: OnReplica | None = None
    """The replica and the broker do not reach each other."""
    drop: Lossy | None = None
    """A share of the replica's messages is lost."""
    duplicate: Lossy | None = None
    """A share of the replica's messages arrives twice."""
    delay: Delay | None = None
    """The replica's messages arrive late."""
    restart_broker: Restart | None = Field(default=None, alias="restart-broker")
    """The broker is restarted."""
    restart_scheduler: Restart | None = Field(default=None, alias="restart-scheduler")
    """The scheduler is restarted and replays its journal."""

    def actions(self) -> dict[str, Section]:
        """The actions that are set, by their names in the file."""
        chosen = {name: getattr(self, name.replace("-", "_")) for name in FAULT_ACTIONS}
        return {name: what for name, what in chosen.items() if what is not None}
