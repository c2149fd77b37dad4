"""How fast the engines of a recorded run were: the `step_scale` with which a simulation of it takes
as long.

A machine drifts, and a profile is of one machine. What a run tells of its engines' speed are its
answers: the gaps between their tokens, and for embeddings, which have none, the time outside of
queues. One number for each kind of engine makes the middle of these times in a simulation what it
was in the run; queues, batches, preemptions and tails are left to the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Final, NamedTuple

import msgspec

from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.telemetry.request_groups import Group, groups_of, whole_of
from anyserve.telemetry.request_table import RequestTable

_ROUNDS: Final = 8
_CLOSE: Final = 0.005
"""Times so near each other are the same."""
_FEW: Final = 8
"""So many answers say something of an engine; fewer do not."""
_UNSCALED: Final = frozenset({"echo", "none"})
"""Engines without a profile."""
_LEAST: Final = 0.001
_MOST: Final = 1000.0
"""What a `step_scale` may be."""
_DIGITS: Final = 4
_FLATTEST: Final = 0.5
_STEEPEST: Final = 8.0
"""Between a fixed cost beside the steps and an engine at its limit."""


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
    kinds = {
        replica.id: kind_of(replica.engine)
        for replica in cluster.replicas
        if replica.engine.kind not in _UNSCALED
    }
    times: dict[EngineKind, list[float]] = {}
    for name, group in whole_of(requests, groups_of(requests)).by_server().items():
        kind = kinds.get(name)
        if kind is not None:
            times.setdefault(kind, []).extend(_times(group, embeds=kind.task == "embed"))
    middles = {kind: _middle(some) for kind, some in times.items() if len(some) >= _FEW}
    return {kind: time for kind, time in middles.items() if time > 0}


def _middle(times: list[float]) -> float:
    quarter = len(times) // 4
    return fmean(sorted(times)[quarter : len(times) - quarter])


def _times(group: Group, *, embeds: bool) -> list[float]:
    times = group.times("tpot")
    if embeds:
        times = group.values("e2e")[0] - group.values("queue")[0]
    found: list[float] = times.tolist()
    return found


class Matched(NamedTuple):
    """The scale of each kind of engine (1: as its profile says, or too few answers to tell), and
    how far off times still are: the logarithm of their ratio, of the worst kind."""

    scales: Scales
    off: float


def match(live: Times, simulate: Callable[[Scales], Times]) -> Matched:
    """The scales with which `simulate` has the times of the run.

    Simulates until they agree within half a percent, eight times at most; then those that came
    nearest.
    """
    searches = {kind: _Search(time) for kind, time in live.items()}
    nearest = Matched({}, math.inf)
    for _ in range(_ROUNDS):
        scales = {kind: search.scale for kind, search in searches.items()}
        found = simulate(scales)
        errors = [searches[kind].hear(found[kind]) for kind in searches if found.get(kind)]
        worst = max(errors, default=0.0)
        if worst < nearest.off:
            nearest = Matched(scales, worst)
        if worst <= _CLOSE:
            break
    return nearest


class _Search:
    """Looks for the scale at which a time is what it was, by the secants of its logarithm.

    Where an engine is near its limit its time grows several times as fast as the scale: a step by
    the plain ratio would go beyond what is looked for, back and forth. Never leaves the interval in
    which it must lie once both ends are known.
    """

    def __init__(self, target: float) -> None:
        self.scale = 1.0
        self._target = target
        self._before: tuple[float, float] | None = None
        """Logarithms of a scale and of its time over the target."""
        self._low: float | None = None
        self._high: float | None = None

    def hear(self, time: float) -> float:
        """It took so long with `scale`: returns how far off that is, and knows a better scale."""
        at, error = math.log(self.scale), math.log(time / self._target)
        if error < 0:
            self._low = at
        else:
            self._high = at
        to = at - error / self._slope(at, error)
        low, high = self._low, self._high
        if low is not None and high is not None and not min(low, high) < to < max(low, high):
            to = (low + high) / 2
        self._before = (at, error)
        self.scale = round(min(_MOST, max(_LEAST, math.exp(to))), _DIGITS)
        return abs(error)

    def _slope(self, at: float, error: float) -> float:
        if self._before is None or self._before[0] == at:
            return 1.0
        slope = (error - self._before[1]) / (at - self._before[0])
        return min(_STEEPEST, max(_FLATTEST, slope))


def step_scale(engine: EngineSpec, scales: Scales) -> float:
    """The `step_scale` of an engine that takes so many times as long as it says."""
    return engine.step_scale * scales.get(kind_of(engine), 1.0)


def scaled(cluster: ClusterSpec, scales: Scales) -> ClusterSpec:
    """The cluster with engines that take so many times as long as it says."""
    replace = msgspec.structs.replace
    replicas = []
    for replica in cluster.replicas:
        engine = replace(replica.engine, step_scale=step_scale(replica.engine, scales))
        replicas.append(replace(replica, engine=engine))
    return replace(cluster, replicas=tuple(replicas))
