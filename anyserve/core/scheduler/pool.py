"""The replicas that offer one capability and have credit, indexed for policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from anyserve.core.messages import Request
from anyserve.core.policies import ReplicaInfo
from anyserve.core.randomness import Rng
from anyserve.core.scheduler.ranking import ByCredit, ByFill, ByTurn, Filter, Ranking
from anyserve.core.scheduler.state import ReplicaView

KEYS: Final[Mapping[str, type[Ranking]]] = {"fill": ByFill, "packed": ByCredit, "turn": ByTurn}

MAX_HOMES: Final = 100_000
"""Beginnings of prompts of which a pool knows who took them last."""


class Pool:
    """Members in an array for sampling, and a ranking per key, made when a policy first asks."""

    def __init__(self) -> None:
        self._members: list[ReplicaView] = []
        self._position: dict[str, int] = {}
        self._by_key: dict[str, Ranking] = {}
        self._rankings: list[Ranking] = []
        self.prefix_homes: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, replica: str) -> bool:
        return replica in self._position

    def __iter__(self) -> Iterator[ReplicaView]:
        return iter(self._members)

    def put(self, view: ReplicaView) -> None:
        """Add a member, or note that its numbers changed."""
        position = self._position.get(view.id)
        if position is None:
            self._position[view.id] = len(self._members)
            self._members.append(view)
        else:
            self._members[position] = view
        for ranking in self._rankings:
            ranking.put(view)

    def drop(self, replica: str) -> None:
        """Remove a member; absent is fine."""
        position = self._position.pop(replica, None)
        if position is None:
            return
        last = self._members.pop()
        if last.id != replica:
            self._members[position] = last
            self._position[last.id] = position
        for ranking in self._rankings:
            ranking.drop(replica)

    def get(self, replica: str) -> ReplicaView | None:
        """The member of this id."""
        position = self._position.get(replica)
        return None if position is None else self._members[position]

    def at(self, position: int) -> ReplicaView:
        """The member at this place of the array; places change as members come and go."""
        return self._members[position]

    def remember(self, affinity: str, replica: str) -> None:
        """This replica took a request that begins so; the oldest of too many are forgotten."""
        homes = self.prefix_homes
        for name in affinity.split("/"):
            homes.pop(name, None)
            homes[name] = replica
        while len(homes) > MAX_HOMES:
            del homes[next(iter(homes))]

    def home_of(self, affinity: str, test: Filter) -> ReplicaView | None:
        """The member that took the longest of these beginnings last, of those that pass."""
        for name in reversed(affinity.split("/")):
            view = self.get(self.prefix_homes.get(name, ""))
            if view is not None and test.passes(view):
                return view
        return None

    def has_any(self, test: Filter) -> bool:
        """Whether one of the members passes."""
        for view in self._members:  # noqa: SIM110 - the loop costs half of what `any` does
            if test.passes(view):
                return True
        return False

    def first(self, key: str, test: Filter) -> ReplicaView | None:
        """The member with the smallest `key` of those that pass: O(log N) where few of the best do
        not."""
        ranking = self._by_key.get(key)
        if ranking is None:
            ranking = self._by_key[key] = KEYS[key]()
            for view in self._members:
                ranking.put(view)
            self._rankings.append(ranking)
        return ranking.first(test)


class RequestView:
    """One request's candidates in a pool. Implements `policies.CandidateView`."""

    def __init__(
        self,
        pool: Pool,
        request: Request,
        eligible: Filter,
        rng: Rng,
    ) -> None:
        self._pool = pool
        self._request = request
        self._eligible = eligible
        self._rng = rng
        self.examined: list[ReplicaView] = []
        """What the policy was shown; some of it more than once."""

    def __len__(self) -> int:
        return len(self._pool)

    def __iter__(self) -> Iterator[ReplicaInfo]:
        for view in self._pool:
            if self._eligible.passes(view):
                yield self._note(view)

    def least(self, key: str) -> ReplicaInfo:
        """See `policies.CandidateView`.

        Raises:
            KeyError: core keeps no index of this key.
        """
        if key not in KEYS:
            raise KeyError(f"no index {key!r}; core keeps {', '.join(KEYS)}")
        view = self._pool.first(key, self._eligible)
        if view is None:
            raise LookupError("no candidate")
        return self._note(view)

    def sample(self, k: int) -> Sequence[ReplicaInfo]:
        """See `policies.CandidateView`; falls back to the first candidate where draws miss."""
        drawn: dict[str, ReplicaView] = {}
        size = len(self._pool)
        for _ in range(4 * k if size > k else 0):
            view = self._pool.at(self._rng.randrange(size))
            if view.id not in drawn and self._eligible.passes(view):
                drawn[view.id] = view
                if len(drawn) == k:
                    break
        if not drawn:
            for view in self._pool:
                if self._eligible.passes(view):
                    drawn[view.id] = view
                    if len(drawn) == k:
                        break
        return [self._note(view) for view in drawn.values()]

    def with_prefix(self, affinity: str) -> ReplicaInfo | None:
        """See `policies.CandidateView`."""
        home = self._pool.home_of(affinity, self._eligible)
        return None if home is None else self._note(home)

    def _note(self, view: ReplicaView) -> ReplicaView:
        self.examined.append(view)
        return view
