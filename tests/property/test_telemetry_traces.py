"""Invariant 10 on the trace itself: for any consistent story the segments add up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.trace import SegmentKind, build_trace, render_trace

ID = "player/1/0"
TIMES = st.integers(0, 3_000_000_000)


def legs(*, end: str | None = None, entry: bool | None = None) -> st.SearchStrategy[Leg]:
    back = st.sampled_from(["delegate", "refuse", "return", "lost"])
    return st.builds(
        Leg,
        replica=st.sampled_from(["s1", "s2", "h1"]),
        end=back if end is None else st.just(end),
        routed=st.booleans() if entry is None else st.just(not entry),
        transit_ns=TIMES,
        scheduler_queue_ns=TIMES,
        assign_ns=TIMES,
        queue_ns=TIMES,
        engine_wait_ns=TIMES,
        prefill_ns=TIMES,
        decode_ns=TIMES,
        back_ns=TIMES,
    )


ROUTES = st.builds(
    lambda first, middle, last: [*first, *middle, last],
    st.lists(legs(), max_size=1),
    st.lists(legs(entry=False), max_size=4),
    legs(end="serve", entry=False),
)
OFFSETS = st.integers(-(10**15), 10**15)
HOSTS = st.dictionaries(
    st.sampled_from(["scheduler", "s1", "s2", "h1"]), st.tuples(st.sampled_from("bc"), st.just(0))
)


@given(route=ROUTES, intended=TIMES, delay=TIMES)
def test_every_segment_of_a_consistent_story_is_found_exactly(
    route: list[Leg], intended: int, delay: int
) -> None:
    teller = Storyteller()
    teller.request(ID, route, intended_ns=intended, client_delay_ns=delay)
    trace = build_trace(reversed(teller.envelopes), ID)
    assert [(one.kind, one.duration_ns) for one in trace.segments] == teller.expected[ID]
    assert sum(one.duration_ns for one in trace.segments) == trace.total_ns
    assert not trace.clock_skew


@given(route=ROUTES, hosts=HOSTS, b=OFFSETS, c=OFFSETS)
def test_with_foreign_clocks_the_sum_is_exact_and_own_durations_stay(
    route: list[Leg], hosts: dict[str, tuple[str, int]], b: int, c: int
) -> None:
    offsets = {"b": b, "c": c}
    clocks = {source: (boot, offsets[boot]) for source, (boot, _) in hosts.items()}
    teller = Storyteller(clocks=clocks)
    teller.request(ID, route)
    trace = build_trace(teller.envelopes, ID)
    assert sum(one.duration_ns for one in trace.segments) == trace.total_ns
    assert trace.total_ns == sum(duration for _, duration in teller.expected[ID])
    assert min(one.duration_ns for one in trace.segments) >= 0
    assert not trace.clock_skew
    for segment, (kind, duration) in zip(trace.segments, teller.expected[ID], strict=True):
        assert segment.kind is kind
        assert segment.estimated or segment.duration_ns == duration


@given(
    route=ROUTES,
    wrong=st.dictionaries(st.sampled_from(["scheduler", "s1", "s2", "h1"]), OFFSETS, min_size=1),
    width=st.integers(1, 200),
)
def test_a_clock_that_lies_never_breaks_the_sum(
    route: list[Leg], wrong: dict[str, int], width: int
) -> None:
    """The same boot is claimed, but the clocks differ: clamped, flagged, and it still adds up."""
    teller = Storyteller(clocks={source: ("boot", by) for source, by in wrong.items()})
    teller.request(ID, route)
    trace = build_trace(teller.envelopes, ID)
    assert sum(one.duration_ns for one in trace.segments) == trace.total_ns
    assert min(one.duration_ns for one in trace.segments) >= 0
    assert trace.clock_skew is (trace.skew_ns > 0)
    assert max(map(len, render_trace(trace, width).splitlines())) <= max(width, 60)


@given(
    part=st.sampled_from(
        [
            ("transit_ns", SegmentKind.TRANSIT, 0),
            ("scheduler_queue_ns", SegmentKind.SCHEDULER_QUEUE, 0),
            ("assign_ns", SegmentKind.TRANSIT, 1),
            ("queue_ns", SegmentKind.REPLICA_QUEUE, 0),
            ("engine_wait_ns", SegmentKind.ENGINE_WAIT, 0),
            ("prefill_ns", SegmentKind.PREFILL, 0),
            ("decode_ns", SegmentKind.DECODE, 0),
            ("back_ns", SegmentKind.DELIVERY, 0),
        ]
    ),
    delay_ns=st.integers(1, 10**10),
)
def test_an_injected_delay_appears_in_its_segment_and_nowhere_else(
    part: tuple[str, SegmentKind, int], delay_ns: int
) -> None:
    name, kind, number = part
    leg = Leg("s1", scheduler_queue_ns=5, queue_ns=5, engine_wait_ns=5)
    changes: dict[str, Any] = {name: getattr(leg, name) + delay_ns}
    plain, delayed = Storyteller(), Storyteller()
    plain.request(ID, [leg])
    delayed.request(ID, [replace(leg, **changes)])
    before, after = build_trace(plain.envelopes, ID), build_trace(delayed.envelopes, ID)
    changed = [
        (one.kind, other.duration_ns - one.duration_ns)
        for one, other in zip(before.segments, after.segments, strict=True)
        if other.duration_ns != one.duration_ns
    ]
    assert changed == [(kind, delay_ns)]
    places = [index for index, one in enumerate(before.segments) if one.kind is kind]
    grown = places[number]
    assert after.segments[grown].duration_ns - before.segments[grown].duration_ns == delay_ns
