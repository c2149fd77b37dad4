from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from builders import request

from anyserve.core.policies import SHIPPED, Choice, ReplicaInfo, shipped_policy
from anyserve.errors import ScenarioError


class Info(msgspec.Struct, frozen=True):
    """A candidate with the figures it is given."""

    id: str
    in_use: int = 0
    waiting: int = 0
    concurrency: int = 4
    kv_usage: float = 0.0
    turn: int = 0

    @property
    def credit(self) -> int:
        return self.concurrency - self.in_use

    @property
    def fill(self) -> float:
        return (self.in_use + self.waiting) / self.concurrency


class View:
    """Candidates as a list; `sample` draws the first ones and notes how many were asked for."""

    def __init__(self, *candidates: Info) -> None:
        self._candidates = candidates
        self.asked = 0

    def __len__(self) -> int:
        return len(self._candidates)

    def __iter__(self) -> Iterator[ReplicaInfo]:
        return iter(self._candidates)

    def least(self, key: str) -> ReplicaInfo:
        keys = {
            "fill": lambda one: one.fill,
            "packed": lambda one: one.credit,
            "turn": lambda one: one.turn,
        }
        return min(self._candidates, key=keys[key])

    def sample(self, k: int) -> Sequence[ReplicaInfo]:
        self.asked = k
        return self._candidates[:k]

    def with_prefix(self, affinity: str) -> ReplicaInfo | None:
        return None


def choose(name: str, view: View, **options: int) -> Choice:
    return shipped_policy(name, random.Random(0), options).choose(request(), view)


def test_round_robin_takes_the_longest_not_chosen() -> None:
    view = View(Info("a", turn=3), Info("b", turn=1, in_use=4), Info("c", turn=2))

    assert choose("round-robin", view).replica == "b"


def test_least_loaded_counts_the_entry_queue_too() -> None:
    view = View(Info("a", in_use=1, waiting=3), Info("b", in_use=3))

    assert choose("least-loaded", view) == Choice("b", 0.75, "least fill")


def test_power_of_two_compares_two_draws_only() -> None:
    view = View(Info("a", in_use=2), Info("b", in_use=1), Info("c"))

    scores = {"a": 0.5, "b": 0.25}
    assert choose("power-of-two", view) == Choice("b", 0.25, "least fill of 2 drawn", scores)
    assert view.asked == 2


def test_power_of_two_draws_as_many_as_it_is_told() -> None:
    view = View(Info("a", in_use=2), Info("b", in_use=1), Info("c"))

    assert choose("power-of-two", view, choices=3).replica == "c"
    assert view.asked == 3


def test_draws_of_equal_fill_are_told_apart_by_id() -> None:
    assert choose("power-of-two", View(Info("b"), Info("a"))).replica == "a"


def test_bin_packing_takes_the_fullest_that_has_room() -> None:
    view = View(Info("a", in_use=1), Info("b", in_use=3), Info("c"))

    assert choose("bin-packing", view) == Choice("b", 1.0, "fewest free slots")


def test_an_unknown_policy_is_an_error_that_lists_the_shipped_ones() -> None:
    with pytest.raises(ScenarioError, match="'fastest'") as raised:
        shipped_policy("fastest", random.Random(0), {})

    assert raised.value.code == "unknown_policy"
    assert all(name in raised.value.hint for name in SHIPPED)


class HomeView(View):
    """As `View`; the first candidate took the prefix before."""

    def with_prefix(self, affinity: str) -> ReplicaInfo | None:
        return self._candidates[0] if affinity == "known" else None


def follow_prefix(affinity: str | None, view: View, **options: float) -> Choice:
    policy = shipped_policy("prefix-affinity", random.Random(0), options)
    return policy.choose(msgspec.structs.replace(request(), affinity=affinity), view)


def test_prefix_affinity_goes_where_the_prefix_was_computed() -> None:
    view = HomeView(Info("a", in_use=2), Info("b"))

    assert follow_prefix("known", view).replica == "a"
    assert follow_prefix("other", view).replica == "b"
    assert follow_prefix(None, view).replica == "b"


def test_prefix_affinity_leaves_a_home_that_is_much_busier() -> None:
    view = HomeView(Info("a", in_use=3), Info("b"))

    assert follow_prefix("known", view).replica == "b"
    assert follow_prefix("known", view, slack=0.8).replica == "a"
