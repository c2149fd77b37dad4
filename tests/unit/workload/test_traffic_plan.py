from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import msgspec
import pytest

from anyserve.errors import UsageError
from anyserve.workload.arrivals import RateStep, constant_arrivals, expected_count
from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import parse_scenario
from anyserve.workload.traffic import TrafficPlan

SECOND = 1_000_000_000


def plan_of(text: str, *overrides: str, seed: int = 1, entry: str | None = None) -> TrafficPlan:
    scenario = parse_scenario(text, overrides=overrides)
    return compile_scenario(scenario, seed=seed, entry=entry).plan


def test_a_constant_rate_is_even_and_follows_the_phases(base: str) -> None:
    chat = [one for one in plan_of(base).requests if one.stream == "chat"]
    calm = [n * SECOND for n in range(10)]
    burst = [10 * SECOND + n * SECOND // 2 for n in range(10)]
    assert [one.at_ns for one in chat] == calm + burst
    assert Counter(one.phase for one in chat) == {"calm": 10, "burst": 10}


def test_a_slow_stream_keeps_its_rhythm_over_phases() -> None:
    steps = [RateStep(n * SECOND, (n + 1) * SECOND, Fraction(3, 10), n) for n in range(10)]
    times = [at / SECOND for at, _phase in constant_arrivals(steps)]
    assert times == pytest.approx([0, 10 / 3, 20 / 3], abs=1e-6)


def test_decimal_rates_are_what_they_say() -> None:
    step = RateStep(0, 10 * SECOND, Fraction("0.1"), 0)
    assert len(list(constant_arrivals([step]))) == expected_count([step]) == 1


def test_rates_of_a_phase_win_over_scale(base: str) -> None:
    plan = plan_of(base, "traffic.phases[burst].rates={chat: 0}")
    assert Counter(one.stream for one in plan.requests if one.phase == "burst") == {"search": 10}


def test_numbers_count_in_order_of_time(base: str) -> None:
    requests = plan_of(base).requests
    assert [one.n for one in requests] == list(range(len(requests)))
    assert [one.at_ns for one in requests] == sorted(one.at_ns for one in requests)


def test_requests_of_one_instant_keep_the_order_of_the_file(base: str) -> None:
    assert [one.stream for one in plan_of(base).requests[:2]] == ["chat", "search"]


def test_a_seed_gives_one_plan(base: str) -> None:
    poisson = "traffic.streams[*].arrivals=poisson"
    assert plan_of(base, poisson, seed=3) == plan_of(base, poisson, seed=3)
    assert plan_of(base, poisson, seed=3) != plan_of(base, poisson, seed=4)


def test_streams_draw_for_themselves(base: str) -> None:
    lengths = "traffic.streams.search.prompt_tokens={uniform: {min: 1, max: 400}}"
    alone = plan_of(base, lengths)
    beside = plan_of(base, lengths, "traffic.streams.chat.rate=9")
    search = [
        [(one.at_ns, one.segments) for one in plan.requests if one.stream == "search"]
        for plan in (alone, beside)
    ]
    assert search[0] == search[1]


def test_more_requests_draw_the_same_lengths_first(base: str) -> None:
    lengths = "traffic.streams.chat.prompt_tokens={uniform: {min: 1, max: 400}}"
    slow = plan_of(base, lengths)
    fast = plan_of(base, lengths, "traffic.streams.chat.rate=3")
    drawn = [
        [one.prompt_tokens for one in plan.requests if one.stream == "chat"]
        for plan in (slow, fast)
    ]
    assert len(drawn[1]) > len(drawn[0])
    assert drawn[1][: len(drawn[0])] == drawn[0]


def test_the_hash_seed_of_python_changes_nothing(base: str) -> None:
    code = (
        "import sys, msgspec, hashlib\n"
        "from anyserve.workload.compile import compile_scenario\n"
        "from anyserve.workload.load import parse_scenario\n"
        "sets = ['traffic.streams[*].arrivals=poisson', 'traffic.streams[*].entry=any']\n"
        "scenario = parse_scenario(sys.stdin.read(), overrides=sets)\n"
        "plan = compile_scenario(scenario, seed=1).plan\n"
        "print(hashlib.sha256(msgspec.json.encode(plan)).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=base,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


def test_prompts_share_their_beginnings(base: str) -> None:
    plan = plan_of(
        base,
        "traffic.streams.chat.prefix={tokens: 24, groups: 3}",
        "traffic.streams.chat.prompt_tokens=32",
    )
    chat = [one.segments for one in plan.requests if one.stream == "chat"]
    assert {len(segments) for segments in chat} == {2}
    assert {(first[1], second[1]) for first, second in chat} == {(24, 8)}
    assert len({first[0] for first, _second in chat}) == 3
    assert len({second[0] for _first, second in chat}) == len(chat)


def test_a_prompt_that_is_all_prefix(base: str) -> None:
    plan = plan_of(base, "traffic.streams.chat.prefix={tokens: 32}")
    chat = [one.segments for one in plan.requests if one.stream == "chat"]
    assert len(set(chat)) == 1
    assert chat[0][0][1] == 32


def test_entries(base: str) -> None:
    assert {one.entry for one in plan_of(base).requests} == {"scheduler"}
    group = plan_of(base, "traffic.streams.search.entry=e")
    assert {one.entry for one in group.requests if one.stream == "search"} == {"e-1", "e-2"}
    everywhere = plan_of(base, entry="any")
    assert {one.entry for one in everywhere.requests} == {"s1", "h1", "e-1", "e-2"}
    assert {one.entry for one in plan_of(base, entry="h1").requests} == {"h1"}
    assert {one.entry for one in plan_of(base, entry="scheduler").requests} == {"scheduler"}


def test_an_entry_that_is_none(base: str) -> None:
    with pytest.raises(UsageError, match="no replica 's2'") as caught:
        plan_of(base, entry="s2")
    assert caught.value.hint == "known: any, e-1, e-2, h1, s1, scheduler"


def test_entry_changes_nothing_else(base: str) -> None:
    first, second = plan_of(base).requests, plan_of(base, entry="any").requests
    assert [(one.at_ns, one.segments, one.max_tokens) for one in first] == [
        (one.at_ns, one.segments, one.max_tokens) for one in second
    ]


def test_a_plan_survives_json(base: str) -> None:
    plan = plan_of(base, "traffic.streams.chat.deadline=2s", "traffic.streams.chat.priority=-3")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=TrafficPlan) == plan
    assert {one.deadline_ms for one in plan.requests if one.stream == "chat"} == {2000}


def test_embeddings_ask_for_no_tokens(base: str) -> None:
    search = [one for one in plan_of(base).requests if one.stream == "search"]
    assert {(one.task, one.max_tokens) for one in search} == {("embed", 0)}
    assert all(not one.sampling for one in search)


def test_generated_lengths_are_exact_unless_told_otherwise(base: str) -> None:
    chat = [one for one in plan_of(base).requests if one.stream == "chat"]
    assert all(one.sampling["ignore_eos"] is True for one in chat)
    assert all(one.sampling["temperature"] == 0 for one in chat)
    assert all("seed" not in one.sampling for one in chat)
