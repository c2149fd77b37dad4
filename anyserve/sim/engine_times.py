"""How long the engines of a run took, by their answers: in a recorded run as in a simulation of it.

A machine drifts, and a profile is of one machine. What a run tells of its engines' speed are its
answers: the time that prompts took in the engine, the gaps between tokens, and of embeddings, which
have neither, the time outside of queues.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from anyserve.core.counts import Count, EndedCount
from anyserve.core.events import AnyEvent, AttemptEnded, Envelope
from anyserve.core.spec import ClusterSpec, EngineSpec
from anyserve.sim.enough import ENOUGH
from anyserve.sim.recorder import Counted
from anyserve.telemetry.replica_names import ReplicaNames
from anyserve.telemetry.request_groups import Group, groups_of, whole_of
from anyserve.telemetry.request_table import COMPLETED, RequestTable
from anyserve.telemetry.tally import Tally
from anyserve.workload.profiles import UNPROFILED


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


class Times(NamedTuple):
    """The middle of what answers took, in nanoseconds."""

    token: float
    """A token after the first or, where embeddings are made, one of them outside of queues."""
    prompt: float | None = None
    """From the first place in a step to the first token; None: not known."""


TimesByKind = Mapping[EngineKind, Times]
Prompts = Mapping[str, list[int]]
"""By replica, what completed attempts took from their first place in a step to the first token."""


def kind_of(engine: EngineSpec) -> EngineKind:
    """The kind of an engine."""
    return EngineKind(engine.model, engine.task, engine.profile, engine.threads, engine.dtype)


class Watched(Counted):
    """Counts a simulation, and keeps what its prompts took."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self.prompts: dict[str, list[int]] = {}
        """See `Prompts`."""

    def count(self, t: int, source: str, count: Count) -> None:
        """See `Recorder`."""
        super().count(t, source, count)
        if isinstance(count, EndedCount):
            _note(self.prompts, source, count.status, count.prefill_ns)

    def take(self, t: int, source: str, incarnation: int, seq: int, event: AnyEvent) -> None:
        """See `Recorder`."""
        super().take(t, source, incarnation, seq, event)
        if isinstance(event, AttemptEnded):
            _note(self.prompts, source, event.status, event.times.prefill_ns)


def prompts_of(envelopes: Iterable[Envelope]) -> Prompts:
    """Those of a recorded run."""
    names = ReplicaNames()
    found: dict[str, list[int]] = {}
    for envelope in envelopes:
        event = envelope.event
        names.learn(envelope.source, event)
        if isinstance(event, AttemptEnded):
            _note(found, names.of(envelope.source), event.status, event.times.prefill_ns)
    return found


def _note(prompts: dict[str, list[int]], replica: str, status: str, prefill_ns: int) -> None:
    if status == COMPLETED and prefill_ns:  # what an app answered had no prompt in an engine
        prompts.setdefault(replica, []).append(prefill_ns)


def times_of(requests: RequestTable, prompts: Prompts, cluster: ClusterSpec) -> TimesByKind:
    """What completed answers of each kind of engine took, where there are enough of them: the
    interquartile means. Recoveries and waits amid an answer are beyond them."""
    kinds = {
        replica.id: kind_of(replica.engine)
        for replica in cluster.replicas
        if replica.engine.kind not in UNPROFILED
    }
    tokens: dict[EngineKind, list[float]] = {}
    for name, group in whole_of(requests, groups_of(requests)).by_server().items():
        if (kind := kinds.get(name)) is not None:
            tokens.setdefault(kind, []).extend(_tokens(group, embeds=kind.task == "embed"))
    of_prompts: dict[EngineKind, list[float]] = {}
    for name, some in prompts.items():
        if (kind := kinds.get(name)) is not None and kind.task != "embed":
            of_prompts.setdefault(kind, []).extend(some)
    found = {}
    for kind, times in tokens.items():
        token = _middle(times)
        if token is not None:
            found[kind] = Times(token, _middle(of_prompts.get(kind, [])))
    return found


def _middle(times: list[float]) -> float | None:
    """The interquartile mean; None: nothing can be told by it."""
    if len(times) < ENOUGH:
        return None
    quarter = len(times) // 4
    return fmean(sorted(times)[quarter : len(times) - quarter]) or None


def _tokens(group: Group, *, embeds: bool) -> list[float]:
    times = group.times("tpot")
    if embeds:
        times = group.values("e2e")[0] - group.values("queue")[0]
    found: list[float] = times.tolist()
    return found
