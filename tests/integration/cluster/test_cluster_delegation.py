"""Any request can enter anywhere: it is delegated at most once, and served by the right replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from live import (
    LiveCluster,
    delegations,
    draft,
    outcome,
    two_rungs,
    whole_answer,
)

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import AttemptEnded, RequestOutcome
from anyserve.core.messages import DelegateReason
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.telemetry.trace import SegmentKind, Trace, build_trace

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

ENTRIES = ("scheduler", "s1", "h1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LiveCluster]:
    live = await LiveCluster(two_rungs()).up()
    yield live
    await live.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(cluster: LiveCluster) -> OriginClient:
    return await cluster.origin()


async def traced(cluster: LiveCluster, handle: Handle) -> Trace:
    """Its trace, once all that is said of it was heard."""
    end = await outcome(handle)
    await cluster.watcher.event(RequestOutcome, id=handle.id)
    await cluster.watcher.event(AttemptEnded, id=handle.id, attempt=end.attempt)
    return build_trace(cluster.watcher.about(handle.id), handle.id)


async def test_request_that_fits_where_it_enters_stays_there(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    wanted = draft("decode", entry="s1")
    handle = origin.offer(wanted)
    end = await outcome(handle)
    assert (end.kind, end.served_by) == (OutcomeKind.COMPLETED, "s1")
    assert handle.tokens == whole_answer(wanted)
    trace = await traced(cluster, handle)
    assert (trace.entry, trace.hops, trace.decisions) == ("s1", 1, ())


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (draft("decode.heavy", entry="s1"), DelegateReason.NOT_REGISTERED),
        (draft("decode", prompt=300, entry="s1"), DelegateReason.TOO_LONG),
        (draft("decode", prompt=250, tokens=7, entry="s1"), DelegateReason.TOO_LONG),
    ],
    ids=["heavy", "long prompt", "long answer"],
)
async def test_what_s1_cannot_serve_is_delegated_once_and_served_by_h1(
    cluster: LiveCluster, origin: OriginClient, wanted: Draft, reason: DelegateReason
) -> None:
    handle = origin.offer(wanted)
    end = await outcome(handle)
    assert (end.kind, end.served_by, end.n_tokens) == (
        OutcomeKind.COMPLETED,
        "h1",
        wanted.max_tokens,
    )
    assert handle.tokens == whole_answer(wanted)
    trace = await traced(cluster, handle)
    (said,) = delegations(cluster.watcher.events, handle.id)
    assert (said.replica, said.reason, said.count) == ("s1", reason.value, 1)
    assert (said.from_capability, said.to_capability) == (wanted.capability, "decode.heavy")
    assert (trace.entry, trace.hops, trace.served_by) == ("s1", 2, "h1")


PLAN = [
    draft("decode"),
    draft("decode", prompt=300),
    draft("decode.heavy"),
    draft("decode.heavy", prompt=300),
    draft("decode", prompt=3000),
    draft("decode.heavy", prompt=3000),
    draft("embedding"),
]


async def test_same_plan_has_the_same_outcomes_through_every_entry(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    seen: dict[str, list[tuple[Any, ...]]] = {}
    for entry in ENTRIES:
        handles = [origin.offer(_through(wanted, entry)) for wanted in PLAN]
        ends = await asyncio.gather(*map(outcome, handles))
        seen[entry] = [
            (end.kind.value, end.code and end.code.value, end.served_by, handle.tokens)
            for end, handle in zip(ends, handles, strict=True)
        ]
        assert max(len(delegations(cluster.watcher.events, one.id)) for one in handles) <= 1
    assert [end[:3] for end in seen["scheduler"]] == [
        ("completed", None, "s1"),
        ("completed", None, "h1"),
        ("completed", None, "h1"),
        ("completed", None, "h1"),
        ("rejected", "too_long", None),
        ("rejected", "too_long", None),
        ("rejected", "unknown_capability", None),
    ]
    assert seen["s1"] == seen["scheduler"]
    assert seen["h1"] == seen["scheduler"]


def _through(wanted: Draft, entry: str) -> Draft:
    return draft(wanted.capability, len(wanted.prompt_ids), wanted.max_tokens, entry)


async def test_trace_of_a_delegated_request_accounts_for_all_of_its_time(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    handle = origin.offer(draft("decode.heavy", tokens=20, entry="s1"))
    trace = await traced(cluster, handle)
    end = await cluster.watcher.event(RequestOutcome, id=handle.id)
    assert min(segment.duration_ns for segment in trace.segments) >= 0
    assert sum(segment.duration_ns for segment in trace.segments) == trace.total_ns
    assert trace.total_ns == end.end_ns - trace.intended_ns
    assert (trace.skew_ns, [segment for segment in trace.segments if segment.estimated]) == (0, [])
    (comeback,) = trace.comebacks
    assert (comeback.kind, comeback.replica, comeback.reason) == (
        "delegate",
        "s1",
        "not_registered",
    )
    (decision,) = trace.decisions
    assert (decision.replica, decision.capability) == ("h1", "decode.heavy")


async def test_delay_of_each_step_appears_as_decode_time(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    handle = origin.offer(draft("decode.heavy", tokens=30, entry="s1"))
    trace = await traced(cluster, handle)
    decode = trace.time_in(frozenset({SegmentKind.DECODE}))
    (ended,) = cluster.watcher.find(AttemptEnded, id=handle.id)
    assert decode >= 29 * 10_000_000  # the first of 30 tokens ends the prefill
    assert decode == ended.times.decode_ns
    assert ended.times.prefill_ns < decode
