from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from anyserve.core.events import (
    AttemptEnded,
    AttemptStarted,
    Envelope,
    ReplicaChanged,
    ReplicaLoad,
    RequestDelegated,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestRouted,
)
from anyserve.core.messages import Load
from anyserve.telemetry.invariants import (
    IncompleteLogError,
    Invariant,
    Rules,
    Violation,
    check_invariants,
)
from anyserve.telemetry.storyteller import Leg, Storyteller

ID = "p/1/0"
RULES = Rules(ladder={"decode": "decode.heavy"}, queue_limits={"decode": 4, "decode.heavy": 4})
MS = 1_000_000


def tell(legs: list[Leg] | None = None, **options: Any) -> Storyteller:
    teller = Storyteller()
    teller.register("s1", {"decode": 256, "decode.heavy": None}, concurrency=2)
    teller.register("h1", {"decode.heavy": 1024})
    teller.request(ID, legs or [Leg("s1", scheduler_queue_ns=MS)], **options)
    return teller


def change(
    envelopes: list[Envelope], kind: type[Any], edit: Callable[[Any], dict[str, Any]]
) -> list[Envelope]:
    """The log with each event of this kind edited."""
    return [
        msgspec.structs.replace(one, event=msgspec.structs.replace(one.event, **edit(one.event)))
        if isinstance(one.event, kind)
        else one
        for one in envelopes
    ]


def without(envelopes: list[Envelope], kind: type[Any]) -> list[Envelope]:
    """The log as if these events had never been said (no gap in the numbers)."""
    kept = [one for one in envelopes if not isinstance(one.event, kind)]
    numbers: dict[str, int] = {}
    renumbered = []
    for one in kept:
        seq = numbers.get(one.source, 0)
        numbers[one.source] = seq + 1
        renumbered.append(msgspec.structs.replace(one, seq=seq))
    return renumbered


def broken(envelopes: list[Envelope], rules: Rules = RULES) -> list[Invariant]:
    return [violation.invariant for violation in check_invariants(envelopes, rules)]


@pytest.mark.parametrize(
    "legs",
    [
        [Leg("s1")],
        [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy")],
        [Leg("s1", end="lost"), Leg("s1", end="refuse"), Leg("s1", end="return"), Leg("s1")],
    ],
)
def test_a_good_log_breaks_nothing(legs: list[Leg]) -> None:
    assert check_invariants(tell(legs).envelopes, RULES) == []


def test_a_log_with_gaps_is_refused() -> None:
    log = tell().envelopes
    with pytest.raises(IncompleteLogError, match="incomplete: 1 events missing"):
        check_invariants(log[:3] + log[4:], RULES)
    with pytest.raises(IncompleteLogError, match="incomplete: the end of the log is torn"):
        check_invariants(log, RULES, problems=["the end of the log is torn"])


def test_one_delegation_too_many() -> None:
    hop = Leg("s1", end="delegate", upgraded="decode")
    log = tell([hop, hop, Leg("s1")]).envelopes
    assert broken(log) == [Invariant.DELEGATION_BOUND]
    assert broken(log, Rules(delegation_limit=2, ladder=RULES.ladder)) == []


def test_a_count_over_the_limit_is_enough() -> None:
    log = tell([Leg("s1", end="delegate"), Leg("h1", "decode.heavy")]).envelopes
    assert broken(change(log, RequestDelegated, lambda _: {"count": 2})) == [
        Invariant.DELEGATION_BOUND
    ]


@pytest.mark.parametrize("kind", [RequestOutcome, RequestOffered])
def test_offered_and_outcome_belong_together(kind: type[Any]) -> None:
    assert Invariant.ONE_OUTCOME in broken(without(tell().envelopes, kind))


def test_two_outcomes_are_one_too_many() -> None:
    teller = tell()
    teller.say("player", 9, RequestOutcome(id=ID, outcome="failed", end_ns=9))
    assert Invariant.ONE_OUTCOME in broken(teller.envelopes)


def test_an_outcome_is_one_of_five_and_by_the_owner() -> None:
    log = change(tell().envelopes, RequestOutcome, lambda _: {"outcome": "vanished"})
    assert broken(log) == [Invariant.ONE_OUTCOME]
    teller = Storyteller()
    other = tell().envelopes[-1].event
    log = without(tell().envelopes, RequestOutcome)
    teller.say("someone", 10**9, other)
    assert broken([*log, *teller.envelopes]) == [Invariant.ONE_OUTCOME]


def test_a_start_where_it_is_not_offered() -> None:
    assert broken(tell([Leg("h1")]).envelopes) == [Invariant.RIGHT_PLACE]


def test_a_start_over_the_limit() -> None:
    assert broken(tell(prompt_tokens=250).envelopes) == [Invariant.RIGHT_PLACE]


def test_a_start_before_registration() -> None:
    assert broken(without(tell().envelopes, ReplicaChanged)) == [Invariant.RIGHT_PLACE]


def test_a_registration_counts_from_when_it_was_said() -> None:
    teller = tell()
    teller.register("s1", {"embedding": None}, now=10**9)
    assert broken(teller.envelopes) == []
    teller.request("p/1/1", [Leg("s1")], intended_ns=2 * 10**9)
    (violation,) = check_invariants(teller.envelopes, RULES)
    assert str(violation) == (
        "invariant 3 (right place), p/1/1: started decode at s1, which offers embedding"
    )


def test_down_the_ladder_or_off_it() -> None:
    log = tell([Leg("s1", "decode.heavy", end="delegate"), Leg("s1", "decode")]).envelopes
    assert Invariant.MONOTONE_UPGRADE in broken(log)
    off = change(tell().envelopes, RequestRouted, lambda _: {"capability": "embedding"})
    assert Invariant.MONOTONE_UPGRADE in broken(off)


def test_an_entry_keeps_what_was_asked() -> None:
    log = tell([Leg("s1", routed=False)]).envelopes
    changed = change(log, AttemptStarted, lambda _: {"capability": "decode.heavy"})
    assert broken(changed) == [Invariant.MONOTONE_UPGRADE]


def test_a_ladder_with_a_cycle_ends() -> None:
    rules = Rules(ladder={"decode": "decode.heavy", "decode.heavy": "decode"})
    assert broken(tell().envelopes, rules) == []


def test_an_answer_has_the_tokens_its_attempt_made() -> None:
    log = change(tell().envelopes, RequestOutcome, lambda event: {"n_tokens": event.n_tokens + 1})
    assert broken(log) == [Invariant.WHOLE_STREAM]
    resumed = change(tell().envelopes, AttemptStarted, lambda _: {"resumed": 3})
    assert broken(resumed) == [Invariant.WHOLE_STREAM]
    assert broken(without(tell().envelopes, AttemptEnded)) == [Invariant.WHOLE_STREAM]


def test_a_replica_runs_no_more_than_it_may() -> None:
    teller = tell()
    for number in range(1, 4):
        started = AttemptStarted(id=f"p/1/{number}", attempt=1, capability="decode", received_ns=0)
        teller.say("s1", 10**9, started)
    assert Invariant.BOUNDS_HOLD in broken(teller.envelopes)


@pytest.mark.parametrize(
    ("load", "bad"),
    [
        (Load(running=2, waiting=8), False),
        (Load(running=3), True),
        (Load(waiting=9), True),
    ],
)
def test_reported_loads_keep_the_bounds(load: Load, bad: bool) -> None:
    teller = tell()
    teller.say("s1", 10**9, ReplicaLoad(replica="s1", load=load))
    assert broken(teller.envelopes) == [Invariant.BOUNDS_HOLD] * bad


def test_a_load_before_registration_is_not_judged() -> None:
    teller = Storyteller()
    teller.say("s9", 0, ReplicaLoad(replica="s9", load=Load(running=99, waiting=99)))
    assert broken(teller.envelopes) == []


def test_no_attempt_starts_twice() -> None:
    teller = tell()
    started = next(one.event for one in teller.envelopes if isinstance(one.event, AttemptStarted))
    teller.say("s1", 10**9, started)
    assert Invariant.BOUNDS_HOLD in broken(teller.envelopes)
    teller = tell()
    teller.say("h1", 10**9, msgspec.structs.replace(started, capability="decode.heavy"))
    violations = check_invariants(teller.envelopes, RULES)
    assert any("started twice" in one.text for one in violations)


def test_a_new_request_is_never_queued_over_the_limit() -> None:
    log = change(tell().envelopes, RequestQueued, lambda _: {"depth": 5})
    assert broken(log) == [Invariant.BOUNDS_HOLD]
    assert broken(change(log, RequestQueued, lambda _: {"submission": 2})) != [
        Invariant.BOUNDS_HOLD
    ]


def test_what_comes_back_may_be_queued_over_the_limit() -> None:
    legs = [Leg("s1", end="return"), Leg("s1", scheduler_queue_ns=MS)]
    log = change(tell(legs).envelopes, RequestQueued, lambda _: {"depth": 5})
    assert broken(log) == []


def test_times_that_contradict_each_other() -> None:
    log = change(tell([Leg("s1")]).envelopes, RequestRouted, lambda _: {"received_ns": 10**12})
    assert broken(log) == [Invariant.TIME_ADDS_UP]
    log = change(
        tell().envelopes,
        AttemptEnded,
        lambda event: {"times": msgspec.structs.replace(event.times, engine_wait_ns=-1)},
    )
    assert Invariant.TIME_ADDS_UP in broken(log)


def test_a_live_clock_is_given_its_tolerance() -> None:
    log = change(tell().envelopes, RequestOffered, lambda _: {"intended_ns": MS // 10})
    assert broken(log) == [Invariant.TIME_ADDS_UP]
    assert broken(log, Rules(ladder=RULES.ladder, clock_tolerance_ns=MS)) == []


def test_a_violation_reads_as_one_line() -> None:
    violation = Violation(Invariant.ONE_OUTCOME, ID, "has 2 outcomes")
    assert str(violation) == "invariant 2 (one outcome), p/1/0: has 2 outcomes"
