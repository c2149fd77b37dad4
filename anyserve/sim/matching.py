"""How fast the engines of a recorded run were: the `step_scale` with which a simulation of it takes
as long.

A machine drifts, and a profile is of one machine. What a run tells of its engines' speed are its
answers: the gaps between their tokens, and for embeddings, which have none, the time outside of
queues. One number for each kind of engine makes the middle of these times in a simulation what it
was in the run; queues, batches, preemptions and tails are left to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Final, NamedTuple

import msgspec

from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.telemetry.request_table import Group, RequestTable

_ROUNDS: Final = 5
_CLOSE: Final = 0.003
"""Times so near each other are the same."""
_FEW: Final = 8
"""So many answers say something of an engine; fewer do not."""
_LEAST: Final = 0.001
_MOST: Final = 1000.0
"""What a `step_scale` may be."""
_DIGITS: Final = 4


class EngineKind(NamedTuple):
    """What makes one engine as fast as another on the same machine."""

    model: str | None
    task: str
    profile: str | None
    threads: int
    dtype: str

    @property
    def label(self) -> str:
        """How it is called in a sentence."""
        name = self.model or self.profile or self.task
        return name if self.threads == 1 else f"{name} ({self.threads} threads)"


Scales = Mapping[EngineKind, float]
Times = Mapping[EngineKind, float]
"""Nanoseconds: of a token after the first or, where embeddings are made, of one outside of queues.
"""


def kind_of(engine: EngineSpec) -> EngineKind:
    """The kind of an engine."""
    return EngineKind(engine.model, engine.task, engine.profile, engine.threads, engine.dtype)


def times_of(requests: RequestTable, cluster: ClusterSpec) -> dict[EngineKind, float]:
    """What the completed answers of each kind of engine took, where there are enough of them: the
    interquartile mean over the requests. Recoveries and waits amid an answer are beyond it."""
    kinds = {replica.id: kind_of(replica.engine) for replica in cluster.replicas}
    times: dict[EngineKind, list[float]] = {}
    groups = requests.groups()
    if not groups:
        return {}
    for name, group in requests.whole(groups).by_server().items():
        kind = kinds.get(name)
        if kind is not None:
            times.setdefault(kind, []).extend(_times(group, embeds=kind.task == "embed"))
    return {kind: _middle(some) for kind, some in times.items() if len(some) >= _FEW}


def _middle(times: list[float]) -> float:
    quarter = len(times) // 4
    return fmean(sorted(times)[quarter : len(times) - quarter])


def _times(group: Group, *, embeds: bool) -> list[float]:
    if not embeds:
        return group.times("tpot")
    pairs = zip(group.values("e2e"), group.values("queue"), strict=True)
    return [whole - queued for whole, queued in pairs if whole is not None and queued is not None]


def match(live: Times, simulate: Callable[[Scales], Times]) -> dict[EngineKind, float]:
    """The scale of each kind with which `simulate` has the times of the run.

    Multiplies by how much too short they were, until they agree within 0.3 % or five simulations
    have been made. 1: the profile is right as it is, or one of the two has too few answers.
    """
    scales = dict.fromkeys(live, 1.0)
    for _ in range(_ROUNDS):
        found = simulate(scales)
        ratios = {kind: live[kind] / found[kind] for kind in live if found.get(kind)}
        if all(abs(ratio - 1.0) <= _CLOSE for ratio in ratios.values()):
            break
        for kind, ratio in ratios.items():
            scales[kind] = round(min(_MOST, max(_LEAST, scales[kind] * ratio)), _DIGITS)
    return scales


def scaled(cluster: ClusterSpec, scales: Scales) -> ClusterSpec:
    """The cluster with engines that take so many times as long as it says."""
    replicas = tuple(
        msgspec.structs.replace(
            replica,
            engine=msgspec.structs.replace(
                replica.engine,
                step_scale=replica.engine.step_scale * scales.get(kind_of(replica.engine), 1.0),
            ),
        )
        for replica in cluster.replicas
    )
    return msgspec.structs.replace(cluster, replicas=replicas)
