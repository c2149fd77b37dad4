"""How fast the engines of a recorded run were: the scales with which a simulation of it takes as
long.

Two numbers for each kind of engine make the middle of what its answers took (`engine_times`) in a
simulation what it was in the run: one for its steps, one for what prompts add to them, as machines
differ in memory and in arithmetic. Waiting, queues, batches, preemptions and tails are left to the
model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.sim.engine_times import EngineKind, Times, TimesByKind, Watched, kind_of, times_of
from anyserve.sim.simulation import Progress
from anyserve.sim.trial import count
from anyserve.telemetry.tally import Tally
from anyserve.workload.compile import Compiled

_ROUNDS: Final = 8
_CLOSE: Final = 0.005
"""Times so near each other are the same."""
_LEAST: Final = 0.001
_MOST: Final = 1000.0
"""What a scale may be."""
_DIGITS: Final = 4
_SLOPES: Final = ((0.85, 0.15), (0.35, 0.65))
"""What is taken for true at first: by which power of the two scales of an engine at half load its
times grow; of a token, of a prompt."""
_BOLDEST: Final = 8.0
"""Times an error, the longest step that is believed."""
_FLAT: Final = 1e-6
"""A determinant of slopes that say nothing."""
_NOISE: Final = 0.03
"""From shorter steps than this no slope is learned: times jump a little from scale to scale."""

_Vector = npt.NDArray[np.float64]


class Scale(NamedTuple):
    """How many times as long an engine takes as it says."""

    steps: float = 1.0
    prompts: float = 1.0
    """What prompts add to steps, once more."""


Scales = Mapping[EngineKind, Scale]
AS_IT_SAYS: Final = Scale()


class Matched(NamedTuple):
    """The scale of each kind of engine (1: as its profile says, or too few answers to tell), and
    how far off times still are: the logarithm of their ratio, of the worst kind."""

    scales: Scales
    off: float


def simulated_times(
    compiled: Compiled,
    scales: Scales,
    scenario_dir: str,
    show: Callable[[Progress], None] | None = None,
) -> TimesByKind:
    """What engines take in a simulation in which they are as fast as these scales say. `show` is
    told how far it is.

    Raises:
        AnyServeError: it cannot be simulated.
    """
    cluster = scaled(compiled.cluster, scales)
    tally = Tally()
    watched = Watched(tally)
    count(dataclasses.replace(compiled, cluster=cluster), watched, scenario_dir, show)
    return times_of(tally.requests, watched.prompts, cluster)


def match(live: TimesByKind, simulate: Callable[[Scales], TimesByKind]) -> Matched:
    """The scales with which `simulate` has the times of the run.

    Simulates until they agree within half a percent, eight times at most; then those that came
    nearest.
    """
    searches = {kind: _Search(times) for kind, times in live.items()}
    nearest = Matched({}, math.inf)
    for _ in range(_ROUNDS):
        scales = {kind: search.scale for kind, search in searches.items()}
        found = simulate(scales)
        errors = [searches[kind].hear(found[kind]) for kind in searches if kind in found]
        worst = max(errors, default=0.0)
        if worst < nearest.off:
            nearest = Matched(scales, worst)
        if worst <= _CLOSE:
            break
    return nearest


class _Search:
    """Looks for the scales at which times are what they were, by Broyden's method (C. G. Broyden,
    A class of methods for solving nonlinear simultaneous equations, 1965) on their logarithms.

    Where an engine is near its limit its times grow several times as fast as its scales; the slopes
    are learned from step to step.
    """

    def __init__(self, target: Times) -> None:
        self._target = target
        self._first_slopes = np.eye(1) if target.prompt is None else np.array(_SLOPES)
        self._slopes = self._first_slopes
        self._at = np.zeros(len(self._slopes))
        """Logarithms: of what steps take, over what the engine says, and what prompts add."""
        self._before: tuple[_Vector, _Vector] | None = None
        """The same for the simulation before, and how far off it was."""

    @property
    def scale(self) -> Scale:
        """To be tried next."""
        steps, prompts = float(self._at[0]), float(self._at[-1])
        return Scale(_bounded(steps), _bounded(prompts - steps))

    def hear(self, times: Times) -> float:
        """It took so long with `scale`: returns how far off that is, and knows a better scale."""
        off = self._off(times)
        self._learn(off)
        step = self._step(off)
        self._before = self._at, off
        self._at = self._at + step
        return float(np.abs(off).max())

    def _step(self, off: _Vector) -> _Vector:
        """To where it is met, by the slopes; where these lead astray, they are learned anew."""
        if abs(np.linalg.det(self._slopes)) > _FLAT:
            step = np.linalg.solve(self._slopes, -off)
            if np.linalg.norm(step) <= _BOLDEST * np.linalg.norm(off):
                return step
        self._slopes = self._first_slopes
        return np.linalg.solve(self._slopes, -off)

    def _off(self, times: Times) -> _Vector:
        off = [math.log(times.token / self._target.token)]
        if self._target.prompt is not None:
            prompt = times.prompt or self._target.prompt  # not known: no reason to change anything
            off.append(math.log(prompt / self._target.prompt))
        return np.array(off)

    def _learn(self, off: _Vector) -> None:
        if self._before is None:
            return
        at, off_before = self._before
        step = self._at - at
        if np.linalg.norm(step) > _NOISE:
            unforeseen = off - off_before - self._slopes @ step
            self._slopes = self._slopes + np.outer(unforeseen, step) / (step @ step)


def _bounded(logarithm: float) -> float:
    return round(min(_MOST, max(_LEAST, math.exp(logarithm))), _DIGITS)


def scaled_engine(engine: EngineSpec, scales: Scales) -> EngineSpec:
    """The engine as fast as these say, on top of what it says."""
    scale = scales.get(kind_of(engine), AS_IT_SAYS)
    return msgspec.structs.replace(
        engine,
        step_scale=engine.step_scale * scale.steps,
        prefill_scale=engine.prefill_scale * scale.prompts,
    )


def scaled(cluster: ClusterSpec, scales: Scales) -> ClusterSpec:
    """The cluster with its engines as fast as these say."""
    replace = msgspec.structs.replace
    replicas = tuple(
        replace(replica, engine=scaled_engine(replica.engine, scales))
        for replica in cluster.replicas
    )
    return replace(cluster, replicas=replicas)
