"""Routing policies: which of the replicas that could serve a request gets it.

A policy ranks, it never declines, and it sees only replicas that are ready, have credit, match the
request and are not excluded for it. Write your own as a class with `choose` and name it
`pkg.mod:Class` in the scenario; it runs live and simulated unchanged (`docs/policies.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from anyserve.core.messages import Request
from anyserve.core.randomness import Rng
from anyserve.errors import ScenarioError


class ReplicaInfo(Protocol):
    """What a policy may read of one replica."""

    @property
    def id(self) -> str:
        """The replica's id."""
        ...

    @property
    def concurrency(self) -> int:
        """Slots in all."""
        ...

    @property
    def credit(self) -> int:
        """Slots free to assign now, in the scheduler's view."""
        ...

    @property
    def in_use(self) -> int:
        """Slots taken, by assigned requests and by those that entered there."""
        ...

    @property
    def waiting(self) -> int:
        """Requests in its entry queue, as last reported."""
        ...

    @property
    def kv_usage(self) -> float:
        """Share of its KV cache in use, 0..1, as last reported; 0 where unknown."""
        ...

    @property
    def fill(self) -> float:
        """`(in_use + waiting) / concurrency`."""
        ...


class CandidateView(Protocol):
    """The replicas that could take this request now: never empty."""

    def __len__(self) -> int:
        """How many replicas offer the capability and have credit (before per-request filters)."""
        ...

    def least(self, key: str) -> ReplicaInfo:
        """The replica with the smallest `key`: `fill`, `packed` (fewest free slots) or `turn`
        (longest not chosen). O(log N)."""
        ...

    def sample(self, k: int) -> Sequence[ReplicaInfo]:
        """Up to `k` distinct ones, uniformly at random; at least one. O(k)."""
        ...

    def with_prefix(self, affinity: str) -> ReplicaInfo | None:
        """The candidate that last took a request whose prompt begins the same: the longest of the
        beginnings in `affinity` that one has. O(their number)."""
        ...

    def __iter__(self) -> Iterator[ReplicaInfo]:
        """All of them. O(N): for small clusters and experiments."""
        ...


class Choice(msgspec.Struct, frozen=True):
    """A decision: the replica, its score (lower is better), and the reason in a few words.

    `scores`: what others scored that were weighed against it, by replica, for the trace.
    """

    replica: str
    score: float
    reason: str
    scores: Mapping[str, float] = {}


class RoutingPolicy(Protocol):
    """One method over a read-only view."""

    def choose(self, request: Request, view: CandidateView) -> Choice:
        """Rank the candidates and name the best."""
        ...


class RoundRobin:
    """The candidate that was not chosen for the longest time."""

    def __init__(self, rng: Rng, options: Mapping[str, Any]) -> None:
        """`rng` and `options` are not used."""

    def choose(self, request: Request, view: CandidateView) -> Choice:  # noqa: ARG002
        """See the class."""
        best = view.least("turn")
        return Choice(best.id, 0.0, "next in turn")


class LeastLoaded:
    """The candidate with the smallest share of its slots in use, entry queue counted."""

    def __init__(self, rng: Rng, options: Mapping[str, Any]) -> None:
        """`rng` and `options` are not used."""

    def choose(self, request: Request, view: CandidateView) -> Choice:  # noqa: ARG002
        """See the class."""
        best = view.least("fill")
        return Choice(best.id, best.fill, "least fill")


class PowerOfTwo:
    """The less filled of two drawn at random (Mitzenmacher 2001); `choices` draws more."""

    def __init__(self, rng: Rng, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - one shape
        """`options.choices`: how many to draw, default 2."""
        self._choices = int(options.get("choices", 2))

    def choose(self, request: Request, view: CandidateView) -> Choice:  # noqa: ARG002
        """See the class."""
        drawn = view.sample(self._choices)
        best = min(drawn, key=lambda replica: (replica.fill, replica.id))
        scores = {replica.id: replica.fill for replica in drawn}
        return Choice(best.id, best.fill, f"least fill of {len(drawn)} drawn", scores)


class BinPacking:
    """The candidate with the fewest free slots, so that whole replicas stay idle."""

    def __init__(self, rng: Rng, options: Mapping[str, Any]) -> None:
        """`rng` and `options` are not used."""

    def choose(self, request: Request, view: CandidateView) -> Choice:  # noqa: ARG002
        """See the class."""
        best = view.least("packed")
        return Choice(best.id, float(best.credit), "fewest free slots")


class PrefixAffinity:
    """The candidate that computed the beginning of this prompt before, so that its KV cache serves
    again; the least filled one where nobody did, or where that one is much busier.

    `slack` (default 0.5): how much more of its slots may be in use than of the least filled one's.
    """

    def __init__(self, rng: Rng, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - one shape
        """`options.slack`: see the class."""
        self._slack = float(options.get("slack", 0.5))

    def choose(self, request: Request, view: CandidateView) -> Choice:
        """See the class."""
        least = view.least("fill")
        home = None if request.affinity is None else view.with_prefix(request.affinity)
        if home is None:
            return Choice(least.id, least.fill, "least fill, nobody has its prefix")
        scores = {home.id: home.fill, least.id: least.fill}
        if home.fill > least.fill + self._slack:
            return Choice(least.id, least.fill, f"least fill, {home.id} is too busy", scores)
        return Choice(home.id, home.fill, "has its prefix", scores)


PolicyFactory = Callable[[Rng, Mapping[str, Any]], RoutingPolicy]

SHIPPED: Mapping[str, PolicyFactory] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "power-of-two": PowerOfTwo,
    "bin-packing": BinPacking,
    "prefix-affinity": PrefixAffinity,
}


def shipped_policy(name: str, rng: Rng, options: Mapping[str, Any]) -> RoutingPolicy:
    """The shipped policy of this name.

    Raises:
        ScenarioError: there is none.
    """
    try:
        return SHIPPED[name](rng, options)
    except KeyError:
        raise ScenarioError(
            f"no routing policy is called {name!r}",
            code="unknown_policy",
            hint=f"one of {', '.join(SHIPPED)}, or your own as pkg.mod:Class",
        ) from None
