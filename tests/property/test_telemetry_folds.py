"""Folds that must not depend on luck: gaps, percentiles, order of arrival."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from anyserve.core.events import Envelope
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.log import merge
from anyserve.telemetry.metrics import ClusterMetrics
from anyserve.telemetry.metrics.exposition import render
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.stats import distribution, histogram_distribution, percentile
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.summary import RunFacts, summarise, summary_of, to_dict
from anyserve.telemetry.tally import Tally

LEGS = st.lists(st.sampled_from(["delegate", "refuse", "return", "lost"]), max_size=3)


def story(fates: list[list[str]]) -> list[Envelope]:
    teller = Storyteller()
    for number, ends in enumerate(fates):
        legs = [Leg("s1", end=end, scheduler_queue_ns=7) for end in ends] + [Leg("h1")]
        teller.request(f"p/1/{number}", legs, intended_ns=number * 10_000_000)
    return teller.envelopes


def interleaved(envelopes: list[Envelope], seed: int) -> list[Envelope]:
    """Another order of arrival: each source still in its own order."""
    choose = random.Random(seed)
    queues: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        queues.setdefault(envelope.source, []).append(envelope)
    arrived = []
    while queues:
        source = choose.choice(sorted(queues))
        arrived.append(queues[source].pop(0))
        if not queues[source]:
            del queues[source]
    return arrived


@given(st.lists(st.integers(0, 60), max_size=120))
def test_gaps_are_what_a_set_would_count(numbers: list[int]) -> None:
    gaps, seen = GapCounter(), set[int]()
    for number in numbers:
        assert gaps.add("s", 1, number) is (number not in seen)
        seen.add(number)
        assert gaps.missing == max(seen) + 1 - len(seen)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=80), st.floats(0, 1))
def test_percentiles_are_numpys_default(values: list[int], q: float) -> None:
    expected = float(np.percentile(values, q * 100))
    assert percentile(sorted(values), q) == pytest.approx(expected, rel=1e-9, abs=1e-3)


@given(st.dictionaries(st.integers(1, 10**10), st.integers(0, 40), max_size=12))
def test_a_histogram_is_the_values_it_stands_for(counts: dict[int, int]) -> None:
    values = sorted(bound for bound, count in counts.items() for _ in range(count))
    found, expected = histogram_distribution(counts), distribution(np.array(values, dtype=np.int64))
    assert found.count == expected.count
    for name in ("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"):
        want = getattr(expected, name)
        assert getattr(found, name) == (None if want is None else pytest.approx(want))


@given(st.lists(LEGS, min_size=1, max_size=4), st.integers())
def test_views_do_not_depend_on_the_order_between_sources(
    fates: list[list[str]], seed: int
) -> None:
    envelopes = story(fates)
    one, other = Reducer(), Reducer()
    one.apply_all(envelopes)
    other.apply_all(interleaved(envelopes, seed))
    left, right = one.snapshot(), other.snapshot()
    assert left.counters == right.counters
    assert left.routing == right.routing
    assert left.in_flight == right.in_flight == 0
    key = str
    assert sorted(left.recent, key=key) == sorted(right.recent, key=key)
    assert left.events_missing == right.events_missing == 0


@given(st.lists(LEGS, min_size=1, max_size=4), st.integers(), st.integers(1, 3))
def test_a_summary_of_merged_copies_is_the_summary(
    fates: list[list[str]], seed: int, copies: int
) -> None:
    envelopes = story(fates)
    merged = merge([interleaved(envelopes, seed + copy) for copy in range(copies)])
    assert [one.t for one in merged] == sorted(one.t for one in envelopes)
    assert summarise(merged) == summarise(envelopes)


@given(st.lists(LEGS, min_size=1, max_size=4), st.integers())
def test_a_summary_does_not_depend_on_the_order_between_sources(
    fates: list[list[str]], seed: int
) -> None:
    envelopes = story(fates)
    assert summarise(interleaved(envelopes, seed)) == summarise(envelopes)


@given(st.lists(LEGS, min_size=1, max_size=4), st.data())
def test_a_summary_made_half_way_changes_nothing(
    fates: list[list[str]], data: st.DataObject
) -> None:
    envelopes = story(fates)
    stop = data.draw(st.integers(0, len(envelopes)))
    tally = Tally()
    for number, envelope in enumerate(envelopes):
        if number == stop:
            assert to_dict(summary_of(tally, {}, RunFacts()))["requests"]["completed"] <= len(fates)
        tally.add(envelope)
    assert summary_of(tally, {}, RunFacts()) == summarise(envelopes)


@given(st.lists(LEGS, min_size=1, max_size=4), st.integers(0, 2**20))
def test_metrics_agree_with_the_summary_in_any_order_of_arrival(
    fates: list[list[str]], seed: int
) -> None:
    envelopes = interleaved(story(fates), seed)
    summary = summarise(envelopes)
    metrics = ClusterMetrics()
    for envelope in envelopes:
        metrics.apply(envelope)

    parsed = {
        (sample.name, sample.labels.get("kind", "")): sample.value
        for family in text_string_to_metric_families(render(metrics).decode())
        for sample in family.samples
    }
    assert sum(metrics.outcomes.values()) == summary.requests.offered
    assert sum(metrics.state.delegations.values()) == summary.delegations.total
    assert parsed["anyserve_reentries_total", "lost"] == summary.recoveries.total
    assert parsed["anyserve_reentries_total", "refuse"] == summary.refusals.total
    assert parsed["anyserve_request_duration_seconds_count", ""] == summary.e2e.count
