"""The pool's rankings must name what a plain minimum over its members would."""

from __future__ import annotations

import random

from builders import offer, request
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anyserve.core import messages as msg
from anyserve.core.messages import ReplicaState
from anyserve.core.scheduler.pool import KEYS, Pool, RequestView
from anyserve.core.scheduler.ranking import Where, head_of
from anyserve.core.scheduler.state import ReplicaView

NAMES = [f"r{n}" for n in range(6)]
names = st.sampled_from(NAMES)
keys = st.sampled_from(sorted(KEYS))
names_of_any_kind = st.text(st.sampled_from("r-1209\0\x7f\u00e9\u4e2d\U0001f600"), max_size=9)


def number(key: str, view: ReplicaView) -> float:
    return KEYS[key]().number_of(view)


def replica(name: str, concurrency: int) -> ReplicaView:
    registration = msg.Registration(
        replica=name,
        incarnation=1,
        connection=1,
        revision=1,
        state=ReplicaState.READY,
        offers=[offer()],
        concurrency=concurrency,
    )
    return ReplicaView(registration, 0)


class Indexed(RuleBasedStateMachine):
    """Members come, go and change; some are excluded for the request at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.members: dict[str, ReplicaView] = {}
        self.views = {name: replica(name, 4 + n % 3) for n, name in enumerate(NAMES)}
        self.excluded: set[str] = set()
        self.sequence = 0
        self.turn = 0

    @rule(name=names, granted=st.integers(0, 2), waiting=st.integers(0, 3))
    def put(self, name: str, granted: int, waiting: int) -> None:
        """A credit arrives: its numbers change, and it is in the pool from now on."""
        view = self.views[name]
        self.sequence += 1
        credit = msg.Credit(
            replica=name,
            incarnation=1,
            epoch=1,
            sequence=self.sequence,
            granted_total=view.granted_total + granted,
            taken_total=0,
            assigned_seen=0,
            load=msg.Load(waiting=waiting),
        )
        view.take_credit(credit, 0)
        self._touch(view)

    @rule(name=names)
    def choose(self, name: str) -> None:
        """It is assigned to: less credit, and the last in turn."""
        view = self.views[name]
        if name in self.members:
            view.assign("p/1/1", 1, 0)
            self.turn += 1
            view.turn = self.turn
            self._touch(view)

    def _touch(self, view: ReplicaView) -> None:
        self.pool.put(view)
        self.members[view.id] = view

    @rule(name=names)
    def drop(self, name: str) -> None:
        self.pool.drop(name)
        self.members.pop(name, None)

    @rule(some=st.sets(names))
    def exclude(self, some: set[str]) -> None:
        self.excluded = some

    def _eligible(self) -> list[ReplicaView]:
        return [view for name, view in self.members.items() if name not in self.excluded]

    def _view(self) -> RequestView:
        rng = random.Random(self.sequence)
        eligible = Where(lambda view: view.id not in self.excluded)
        return RequestView(self.pool, request(), eligible, rng)

    @precondition(lambda self: bool(self._eligible()))
    @rule(key=keys)
    def least_is_the_minimum(self, key: str) -> None:
        expected = min(self._eligible(), key=lambda view: (number(key, view), view.id))

        assert self._view().least(key).id == expected.id

    @rule(key=keys)
    def the_first_of_the_rest_again_and_again_is_sorted(self, key: str) -> None:
        expected = sorted(self.members.values(), key=lambda view: (number(key, view), view.id))
        found: list[str] = []
        while (view := self.pool.first(key, Where(lambda one: one.id not in found))) is not None:
            found.append(view.id)

        assert found == [view.id for view in expected]

    @precondition(lambda self: bool(self._eligible()))
    @rule(k=st.integers(1, 4))
    def a_sample_holds_distinct_candidates(self, k: int) -> None:
        drawn = [one.id for one in self._view().sample(k)]

        assert 1 <= len(drawn) == len(set(drawn)) <= k
        assert set(drawn) <= {view.id for view in self._eligible()}

    @invariant()
    def holds_exactly_its_members(self) -> None:
        assert sorted(view.id for view in self.pool) == sorted(self.members)
        assert len(self.pool) == len(self.members)
        for name in NAMES:
            assert (name in self.pool) is (name in self.members)
            assert (self.pool.get(name) is not None) is (name in self.members)


TestIndexed = Indexed.TestCase


@given(one=names_of_any_kind, other=names_of_any_kind)
def test_heads_of_texts_are_in_their_order(one: str, other: str) -> None:
    one_head, other_head = head_of(one), head_of(other)

    assert 0 <= one_head < 1 << 62, "a small number to a compiled program"
    if one_head != other_head:
        assert (one_head < other_head) == (one < other)
