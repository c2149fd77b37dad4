"""Policies in use: what they see, what happens when they fail, and how a decision is explained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from benches import SchedulerBench
from builders import cluster, offer

from anyserve.core import events as ev
from anyserve.core import messages as msg
from anyserve.core.messages import ReplicaState
from anyserve.core.policies import CandidateView, Choice


class Policy:
    """A user's policy made of one function."""

    def __init__(self, rank: Callable[[msg.Request, CandidateView], str]) -> None:
        self._rank = rank
        self.sizes: list[int] = []

    def choose(self, request: msg.Request, view: CandidateView) -> Choice:
        self.sizes.append(len(view))
        return Choice(self._rank(request, view), 0.25, "because")


def routed(bench: SchedulerBench, number: int = 1, **fields: object) -> ev.RequestRouted:
    return bench.submit(number, **fields).event(ev.RequestRouted)  # type: ignore[arg-type]


def test_round_robin_takes_turns() -> None:
    bench = SchedulerBench(cluster(policy="round-robin"))
    for name in ("r1", "r2", "r3"):
        bench.peer(name, concurrency=4)

    assert [routed(bench, n).replica for n in range(1, 7)] == ["r1", "r2", "r3", "r1", "r2", "r3"]


def test_least_loaded_levels_the_share_of_slots_in_use() -> None:
    bench = SchedulerBench(cluster(policy="least-loaded"))
    bench.peer("big", concurrency=4)
    bench.peer("small", concurrency=2)

    chosen = [routed(bench, number).replica for number in range(1, 7)]

    assert (chosen.count("big"), chosen.count("small")) == (4, 2)
    assert chosen[:2] == ["big", "small"]


def test_bin_packing_fills_one_replica_before_the_next() -> None:
    bench = SchedulerBench(cluster(policy="bin-packing"))
    bench.peer("r1", concurrency=3)
    bench.peer("r2", concurrency=2)

    assert [routed(bench, n).replica for n in range(1, 6)] == ["r2", "r2", "r1", "r1", "r1"]


def test_power_of_two_uses_every_replica_and_never_one_without_credit() -> None:
    bench = SchedulerBench(cluster(policy="power-of-two"))
    for name in ("r1", "r2", "r3"):
        bench.peer(name, concurrency=2)

    chosen = [routed(bench, number).replica for number in range(1, 7)]

    assert sorted(chosen) == ["r1", "r1", "r2", "r2", "r3", "r3"]


def test_power_of_two_finds_the_one_eligible_replica_among_many() -> None:
    bench = SchedulerBench(cluster(policy="power-of-two"))
    for number in range(40):
        bench.peer(f"r{number}", offer(max_tokens=6))
    bench.peer("wide", offer(max_tokens=100))

    assert routed(bench).replica == "wide"


def test_a_decision_explains_itself() -> None:
    bench = SchedulerBench()
    bench.peer("full", credit=False)
    bench.peer("short", offer(max_tokens=6))
    bench.peer("other", offer(model="b"))
    bench.peer("embed", offer("embedding"))
    bench.peer("drains", state=ReplicaState.DRAINING)
    bench.peer("r1", offer(model="a"), concurrency=4).credit(waiting=1)
    bench.peer("r2", offer(model="a"), concurrency=2)

    event = routed(bench, attributes={"model": "a"})

    assert (event.replica, event.policy, event.reason) == ("r2", "least-loaded", "least fill")
    assert (event.capability, event.attempt, event.submission) == ("decode", 1001, 1)
    assert event.received_ns == bench.now
    assert event.candidates == [
        ev.Candidate(replica="r2", score=0.0, credit=2, running=0, waiting=0),
        ev.Candidate(replica="r1", credit=4, running=0, waiting=1),
    ]
    assert event.excluded["attributes"] == 3
    assert event.excluded["no_credit"] == 1
    assert event.excluded["not_offered"] == 2


def test_limits_and_earlier_tries_are_counted_as_reasons() -> None:
    bench = SchedulerBench()
    bench.peer("short", offer(max_tokens=6))
    first = bench.peer("a1", concurrency=2)
    bench.peer("a2", concurrency=2)
    assign = bench.assigned(1)

    event = first.refuse(assign).event(ev.RequestRouted)

    assert event.excluded == {"too_long": 1, "tried": 1}


def test_the_explanation_counts_the_eligible_after_all_filters() -> None:
    bench = SchedulerBench()
    bench.peer("short", offer(max_tokens=6))
    bench.peer("r1")

    assert routed(bench).eligible == 1


def test_the_explanation_names_eight_candidates_at_most_the_chosen_first() -> None:
    bench = SchedulerBench(policy=Policy(lambda _, view: max(one.id for one in view)))
    for number in range(8):
        bench.peer(f"r{number}")
    assert [one.replica for one in routed(bench).candidates][:2] == ["r7", "r0"]

    bench.peer("r8")
    bench.peer("r9")
    event = routed(bench, 2)

    assert len(event.candidates) == 8
    assert (event.candidates[0].replica, event.candidates[0].score) == ("r9", 0.25)


def test_a_policy_sees_only_those_that_could_take_the_request() -> None:
    policy = Policy(lambda _, view: min(one.id for one in view))
    bench = SchedulerBench(policy=policy)
    bench.peer("a-full", credit=False)
    bench.peer("b-short", offer(max_tokens=6))
    bench.peer("c-fits")

    assert routed(bench).replica == "c-fits"
    assert policy.sizes == [2]


def test_a_policy_that_raises_is_replaced_by_least_loaded_and_reported() -> None:
    def broken(request: msg.Request, view: CandidateView) -> str:
        raise ZeroDivisionError(request.id)

    bench = SchedulerBench(cluster(policy="my.mod:Policy"), policy=Policy(broken))
    bench.peer("r1", concurrency=2).credit(waiting=1)
    bench.peer("r2", concurrency=2)

    effects = bench.submit(1)

    failed = effects.event(ev.PolicyFailed)
    assert (failed.policy, failed.id) == ("my.mod:Policy", "p/1/1")
    assert failed.error.startswith("ZeroDivisionError: p/1/1 (test_scheduler_routing.py:")
    assert effects.event(ev.RequestRouted).policy == "least-loaded"
    assert effects.event(ev.RequestRouted).replica == "r2"


@pytest.mark.parametrize("name", ["nobody", "full", "short"])
def test_a_policy_that_names_no_candidate_is_overruled(name: str) -> None:
    bench = SchedulerBench(policy=Policy(lambda *_: name))
    bench.peer("full", credit=False)
    bench.peer("short", offer(max_tokens=6))
    bench.peer("r1")

    effects = bench.submit(1)

    assert name in effects.event(ev.PolicyFailed).error
    assert effects.event(ev.RequestRouted).replica == "r1"


class Answers:
    """A user's policy that answers what it was given."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def choose(self, request: msg.Request, view: CandidateView) -> Choice:
        return self._answer  # type: ignore[return-value] # that is the point


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "answered NoneType, not a Choice"),
        ("r1", "answered str"),
        (Choice(1, 0.0, "odd"), "named 1, "),  # type: ignore[arg-type]
        (Choice("r1", 0.0, None), "gave None as its reason"),  # type: ignore[arg-type]
        (Choice("r1", None, "odd"), "scored r1 None"),  # type: ignore[arg-type]
        (Choice("r1", float("nan"), "odd"), "scored r1 nan"),
        (Choice("r1", 0.0, "odd", None), "gave None as scores"),  # type: ignore[arg-type]
        (Choice("r1", 0.0, "odd", {"r2": float("inf")}), "scored r2 inf"),
    ],
)
def test_an_answer_that_no_event_could_carry_is_overruled(answer: object, said: str) -> None:
    bench = SchedulerBench(policy=Answers(answer))
    bench.peer("r1")

    effects = bench.submit(1)

    assert said in effects.event(ev.PolicyFailed).error
    assert effects.event(ev.RequestRouted).policy == "least-loaded"


def test_scores_of_others_are_in_the_explanation() -> None:
    bench = SchedulerBench(policy=Answers(Choice("r1", 1.5, "least work", {"r2": 7.0})))
    for name in ("r1", "r2", "r3"):
        bench.peer(name)

    shown = bench.submit(1).event(ev.RequestRouted).candidates
    assert {one.replica: one.score for one in shown} == {"r1": 1.5, "r2": 7.0, "r3": None}


def test_a_policy_that_asks_for_an_index_core_lacks_fails_with_the_ones_there_are() -> None:
    bench = SchedulerBench(policy=Policy(lambda _, view: view.least("colour").id))
    bench.peer("r1")

    assert "fill, packed, turn" in bench.submit(1).event(ev.PolicyFailed).error


def test_a_prefix_leads_home_while_home_has_room() -> None:
    def at_home(request: msg.Request, view: CandidateView) -> str:
        home = view.with_prefix(request.affinity or "")
        return home.id if home is not None else view.least("fill").id

    bench = SchedulerBench(policy=Policy(at_home))
    bench.peer("r1", concurrency=2)
    bench.peer("r2", concurrency=4)
    first = routed(bench, 1, affinity="chat").replica
    same = [routed(bench, number, affinity="chat").replica for number in (2, 3)]
    other = routed(bench, 4, affinity="talk").replica

    assert (first, same) == ("r1", ["r1", "r2"])
    assert other == "r2"


def test_a_sample_holds_each_candidate_once_and_never_more_than_there_are() -> None:
    seen: list[list[str]] = []

    def sampler(request: msg.Request, view: CandidateView) -> str:
        seen.append([one.id for one in view.sample(3)])
        return seen[-1][0]

    bench = SchedulerBench(policy=Policy(sampler))
    for number in range(5):
        bench.peer(f"r{number}", concurrency=2)
    for number in range(1, 9):
        bench.submit(number)

    assert all(len(set(names)) == len(names) <= 3 for names in seen)
    assert len(seen[0]) == 3
    assert len({name for names in seen for name in names}) == 5
