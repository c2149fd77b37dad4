"""The order of waiting requests is total, and ageing bounds what priority can cost."""

from __future__ import annotations

import itertools

import msgspec
from benches import Peer, SchedulerBench
from builders import cluster, request
from hypothesis import given, settings
from hypothesis import strategies as st

from anyserve.core import messages as msg
from anyserve.core.order import MS, Ordering
from anyserve.core.spec import SchedulerSpec

BOOTS = ("", "elsewhere")
deadlines = st.none() | st.builds(
    msg.Deadline,
    boot=st.sampled_from(BOOTS),
    at_ns=st.integers(0, 10**12),
    left_ms=st.integers(0, 10**6),
)
rules = st.builds(
    SchedulerSpec, order=st.sampled_from(["fifo", "deadline"]), ageing_ms=st.integers(0, 60_000)
)
requests = st.builds(
    request,
    offered_ns=st.integers(0, 10**12),
    priority=st.integers(-3, 3),
    boot=st.sampled_from(BOOTS),
    deadline=deadlines,
)


@given(st.lists(st.tuples(requests, st.integers(0, 10**12)), max_size=8), rules)
def test_no_two_requests_share_a_place(
    arrivals: list[tuple[msg.Request, int]], spec: SchedulerSpec
) -> None:
    places = [
        Ordering(spec, "").place(msgspec.structs.replace(one, id=f"p/1/{number}"), now)
        for number, (one, now) in enumerate(arrivals)
    ]

    assert len(set(places)) == len(places)
    for a, b in itertools.combinations(places, 2):
        assert (a < b) is not (b < a)


@given(requests, requests, rules, st.integers(0, 10**12))
def test_a_request_overtakes_only_what_is_at_most_the_ageing_time_older_per_step(
    late: msg.Request, early: msg.Request, spec: SchedulerSpec, now: int
) -> None:
    """First come, first served; k steps of priority gain at most k times the ageing time."""
    fifo = SchedulerSpec(ageing_ms=spec.ageing_ms)
    first = request(1, offered_ns=early.offered_ns, priority=early.priority)
    second = request(2, offered_ns=late.offered_ns, priority=late.priority)
    ahead = Ordering(fifo, "").place(second, now) < Ordering(fifo, "").place(first, now)

    steps = first.priority - second.priority
    lead_ns = second.offered_ns - first.offered_ns
    if ahead:
        assert lead_ns <= steps * fifo.ageing_ms * MS
    else:
        assert lead_ns >= steps * fifo.ageing_ms * MS


@given(requests, st.integers(1, 60_000))
def test_by_deadline_nobody_counts_as_due_later_than_the_ageing_time(
    one: msg.Request, ageing_ms: int
) -> None:
    spec = SchedulerSpec(order="deadline", ageing_ms=ageing_ms)
    plain = request(offered_ns=one.offered_ns, deadline=one.deadline)

    assert Ordering(spec, "").place(plain, one.offered_ns)[0] <= one.offered_ns + ageing_ms * MS


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.booleans()), max_size=25),
    st.integers(0, 50),
)
def test_no_request_is_overtaken_by_what_came_later_than_ageing_allows(
    steps: list[tuple[int, int, bool]], ageing_ms: int
) -> None:
    """Through the whole scheduler: `steps` are ms since the last one, a priority, and whether a
    slot frees then. Whoever goes ahead of me came at most `ageing_ms` per step of priority later.
    """
    bench = SchedulerBench(cluster(ageing_ms=ageing_ms, lost_after_ms=10**9))
    peer = bench.peer("r1", credit=False)
    peer.granted = 0
    peer.credit()
    waiting: dict[str, tuple[int, int]] = {}
    for number, (gap_ms, priority, frees) in enumerate(steps, 1):
        bench.later(gap_ms)
        waiting[f"p/1/{number}"] = (bench.now, priority)
        bench.submit(number, priority=priority)
        if frees:
            serve_one(peer, waiting, ageing_ms)
    while waiting:
        serve_one(peer, waiting, ageing_ms)


def serve_one(peer: Peer, waiting: dict[str, tuple[int, int]], ageing_ms: int) -> None:
    chosen, priority = waiting.pop(peer.freed().one(msg.Assign).request.id)
    for offered, patience in waiting.values():
        assert chosen - offered <= (patience - priority) * ageing_ms * MS
