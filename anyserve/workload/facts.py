"""What follows from a scenario file: ids of replicas, tasks, what serves what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from anyserve.core.capability import attributes_match
from anyserve.workload.profiles import shipped_profiles
from anyserve.workload.schema import (
    Engine,
    Length,
    LognormalLength,
    Offering,
    Replica,
    ScenarioFile,
    Stream,
    UniformLength,
)

Task = Literal["generate", "embed", "handle"]
DEFAULT_CONCURRENCY: Final = 16


def replica_ids(name: str, replica: Replica) -> list[str]:
    """The ids that one entry of `cluster.replicas` stands for."""
    if replica.count is None:
        return [name]
    pattern = replica.id or f"{name}-{{n}}"
    return [pattern.replace("{n}", str(number)) for number in range(1, replica.count + 1)]


def all_replicas(file: ScenarioFile) -> Iterator[tuple[str, str, Replica]]:
    """Every replica as (group, id, what it is)."""
    for name, replica in file.cluster.replicas.items():
        for replica_id in replica_ids(name, replica):
            yield name, replica_id, replica


def concurrency_of(replica: Replica) -> int:
    """Its slots: what it says, else what its engine computes at once."""
    return replica.concurrency or replica.engine.max_num_seqs or DEFAULT_CONCURRENCY


def served_by_app(replica: Replica) -> tuple[str, ...]:
    """The capabilities that the replica's app serves: those it names, else all."""
    if replica.app is None:
        return ()
    return tuple(replica.app.serves or replica.capabilities)


def task_for(replica: Replica, capability: str) -> Task:
    """What the replica does for a capability."""
    return "handle" if capability in served_by_app(replica) else task_of(replica.engine)


def task_of(engine: Engine) -> Literal["generate", "embed"]:
    """What the engine does: as said, else what its model is known for."""
    if engine.task is not None:
        return engine.task
    profile = shipped_profiles().get(engine.model or "")
    return "embed" if profile is not None and profile.embeds else "generate"


def token_limit(offering: Offering, engine: Engine) -> int | None:
    """Prompt plus output tokens that the offer takes; None where nothing is said."""
    return offering.limits.max_tokens or engine.max_model_len


def rungs(upgrades: Mapping[str, str], capability: str) -> list[str]:
    """This capability and those above it; stops where the ladder runs in a circle."""
    way = [capability]
    while (above := upgrades.get(way[-1])) is not None and above not in way:
        way.append(above)
    return way


def upgrades_of(file: ScenarioFile) -> dict[str, str]:
    """The ladder as declared."""
    capabilities = file.cluster.capabilities
    return {name: one.upgrade for name, one in capabilities.items() if one.upgrade is not None}


@dataclass(frozen=True, slots=True)
class Server:
    """One offer that could serve a stream."""

    replica: str
    capability: str
    task: Task
    limit: int | None


def servers_of(file: ScenarioFile, stream: Stream) -> list[Server]:
    """The offers, at the stream's capability or above it, whose attributes match."""
    found = []
    for rung in rungs(upgrades_of(file), stream.capability):
        for name, replica in file.cluster.replicas.items():
            offering = replica.capabilities.get(rung)
            if offering is None or not attributes_match(stream.attributes, offering.attributes):
                continue
            limit = token_limit(offering, replica.engine)
            found.append(Server(name, rung, task_for(replica, rung), limit))
    return found


def shortest(length: Length | None) -> int:
    """The fewest tokens it can come to."""
    if length is None or isinstance(length, int):
        return length or 0
    if isinstance(length, UniformLength):
        return length.uniform.min
    assert isinstance(length, LognormalLength)
    return length.lognormal.min


def longest(length: Length | None) -> int:
    """The most tokens it can come to."""
    if length is None or isinstance(length, int):
        return length or 0
    if isinstance(length, UniformLength):
        return length.uniform.max
    assert isinstance(length, LognormalLength)
    return length.lognormal.max


def duration_ns(file: ScenarioFile) -> int:
    """How long the traffic lasts."""
    return sum(phase.duration for phase in file.traffic.phases)
