"""Plans hold what the scenario says, for any scenario."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import islice
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from anyserve.workload.arrivals import (
    RateStep,
    constant_arrivals,
    exact_rate,
    expected_count,
    poisson_arrivals,
)
from anyserve.workload.facts import longest, shortest
from anyserve.workload.lengths import draw_lengths
from anyserve.workload.plan import make_plan
from anyserve.workload.schema import Length, LognormalLength, Phase, Stream, UniformLength
from anyserve.workload.stream_plan import StreamPlan

MS = 1_000_000

rates = st.floats(0, 50, allow_nan=False).map(lambda rate: round(rate, 3))
durations = st.integers(1, 3_000).map(lambda ms: f"{ms}ms")
bounds = st.tuples(st.integers(1, 500), st.integers(1, 500)).map(sorted)


@st.composite
def steps(draw: st.DrawFn) -> list[RateStep]:
    start, made = 0, []
    for phase in range(draw(st.integers(1, 6))):
        end = start + draw(st.integers(1, 5_000 * MS))
        made.append(RateStep(start, end, exact_rate(draw(rates)), phase))
        start = end
    return made


lengths = st.one_of(
    st.integers(1, 500),
    bounds.map(lambda b: UniformLength.model_validate({"uniform": {"min": b[0], "max": b[1]}})),
    st.tuples(bounds, st.floats(1, 500), st.floats(0, 3)).map(
        lambda t: LognormalLength.model_validate(
            {"lognormal": {"min": t[0][0], "max": t[0][1], "median": t[1], "sigma": t[2]}}
        )
    ),
)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    prompt: Length = draw(lengths)
    fields = {
        "capability": "decode",
        "rate": draw(rates),
        "arrivals": draw(st.sampled_from(["constant", "poisson"])),
        "prompt_tokens": prompt,
        "output_tokens": draw(lengths),
    }
    if draw(st.booleans()):
        tokens = draw(st.integers(1, shortest(prompt)))
        fields["prefix"] = {"tokens": tokens, "groups": draw(st.integers(1, 4))}
    return Stream.model_validate(fields)


@st.composite
def phase_lists(draw: st.DrawFn) -> list[Phase]:
    return [
        Phase.model_validate(
            {
                "name": f"p{n}",
                "duration": draw(durations),
                "scale": round(draw(st.floats(0, 3)), 2),
                "rates": draw(st.dictionaries(st.sampled_from(["a", "b"]), rates, max_size=2)),
            }
        )
        for n in range(draw(st.integers(1, 4)))
    ]


def assert_in_steps(times: list[tuple[int, int]], all_steps: list[RateStep]) -> None:
    assert [at for at, _ in times] == sorted(at for at, _ in times)
    for at, phase in times:
        assert all_steps[phase].start_ns <= at < all_steps[phase].end_ns
        assert all_steps[phase].per_second > 0


@given(steps())
def test_constant_arrivals_are_as_many_as_declared(all_steps: list[RateStep]) -> None:
    times = list(constant_arrivals(all_steps))
    assert_in_steps(times, all_steps)
    assert len(times) == ceil(expected_count(all_steps))
    done = Fraction(0)
    for step in all_steps:
        inside = sum(1 for _, phase in times if phase == step.phase)
        assert inside == ceil(done + step.mass) - ceil(done)
        done += step.mass


@given(steps(), st.integers(0, 2**32))
def test_poisson_arrivals_are_inside_the_phases(all_steps: list[RateStep], seed: int) -> None:
    assert_in_steps(list(poisson_arrivals(all_steps, random.Random(seed))), all_steps)


def test_poisson_arrivals_have_the_mean_and_the_spread_of_one() -> None:
    step = RateStep(0, 100_000 * MS, Fraction(7), 0)
    counts = [len(list(poisson_arrivals([step], random.Random(seed)))) for seed in range(400)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert abs(mean - 700) < 5 * (700 / 400) ** 0.5
    assert 0.7 < variance / 700 < 1.4


@given(lengths, st.integers(0, 2**32))
def test_lengths_stay_in_their_bounds(length: Length, seed: int) -> None:
    drawn = list(islice(draw_lengths(length, random.Random(seed)), 200))
    assert shortest(length) <= min(drawn)
    assert max(drawn) <= longest(length)


@given(st.lists(streams(), min_size=1, max_size=3), phase_lists(), st.integers(0, 2**40))
def test_plans(some: list[Stream], phases: list[Phase], seed: int) -> None:
    plans = [
        StreamPlan(name=name, stream=stream, task="generate", entries=("s1", "s2"))
        for name, stream in zip("abc", some, strict=False)
    ]
    plan = make_plan(plans, phases, seed=seed)
    by_name = {one.name: one.stream for one in plans}
    times = {phase.name: (phase.start_ns, phase.end_ns) for phase in plan.phases}
    assert plan.duration_ns == sum(phase.duration for phase in phases)
    assert [one.n for one in plan.requests] == list(range(len(plan.requests)))
    assert [one.at_ns for one in plan.requests] == sorted(one.at_ns for one in plan.requests)
    for request in plan.requests:
        stream = by_name[request.stream]
        start, end = times[request.phase]
        assert start <= request.at_ns < end
        assert shortest(stream.prompt_tokens) <= request.prompt_tokens
        assert request.prompt_tokens <= longest(stream.prompt_tokens)
        assert shortest(stream.output_tokens) <= request.max_tokens <= longest(stream.output_tokens)
        assert all(length > 0 and 0 <= value < 2**63 for value, length in request.segments)
        assert request.entry in {"s1", "s2"}
    assert make_plan(plans, phases, seed=seed) == plan


@given(st.lists(streams(), min_size=2, max_size=2), phase_lists(), st.integers(0, 2**40))
def test_a_stream_draws_the_same_without_the_others(
    some: list[Stream], phases: list[Phase], seed: int
) -> None:
    first, second = (
        StreamPlan(name=name, stream=stream, task="generate", entries=("scheduler",))
        for name, stream in zip("ab", some, strict=True)
    )
    together = make_plan([first, second], phases, seed=seed)
    alone = make_plan([first], phases, seed=seed)

    def of_first(requests: object) -> list[tuple[object, ...]]:
        assert isinstance(requests, tuple)
        return [(o.at_ns, o.segments, o.max_tokens) for o in requests if o.stream == "a"]

    assert of_first(together.requests) == of_first(alone.requests)
