"""What ends a request early: its client, its deadline, a full queue, a body nobody can read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from live import LiveCluster, draft, echo, outcome, tokens_came, two_rungs, whole_answer

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import (
    AttemptAdmitted,
    AttemptEnded,
    AttemptStarted,
    RequestQueued,
)
from anyserve.core.messages import Code
from anyserve.core.spec import CapabilitySpec
from anyserve.runtime.engines.base import Sampling
from anyserve.runtime.origin import Draft, Handle, OriginClient

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

LONG_AT_S1 = 230
"""Tokens of a request that occupies s1 for ten seconds, unless it is stopped."""
LONG_AT_H1 = 1500


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LiveCluster]:
    live = await LiveCluster(
        two_rungs(
            small={"concurrency": 1, "entry_queue": 2, "engine": echo(256, step_ms=45.0)},
            large={"concurrency": 1},
            capabilities=[CapabilitySpec(name="tight", queue_limit=1)],
        )
    ).up()
    yield live
    await live.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(cluster: LiveCluster) -> OriginClient:
    return await cluster.origin()


Block = Callable[[Draft], "asyncio.Future[Handle]"]


async def running(origin: OriginClient, wanted: Draft) -> Handle:
    """An offered request whose first tokens have come."""
    handle = origin.offer(wanted, streamed=True)
    await tokens_came(handle, 2)
    return handle


async def stopped(cluster: LiveCluster, origin: OriginClient, handle: Handle) -> None:
    """Cancel a running request, and wait until its engine has let go of it."""
    origin.cancel(handle.id)
    await cluster.watcher.event(AttemptEnded, id=handle.id)


def never_started(cluster: LiveCluster, handle: Handle) -> bool:
    return cluster.watcher.find(AttemptStarted, id=handle.id) == []


async def still_serves(origin: OriginClient, entry: str) -> None:
    """Slots and credits of both replicas are free again: each serves one more request."""
    for capability in ("decode", "decode.heavy"):
        end = await outcome(origin.offer(draft(capability, tokens=2, entry=entry)))
        assert end.kind is OutcomeKind.COMPLETED, end


# --- cancelling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        draft("decode", tokens=LONG_AT_S1),
        draft("decode", tokens=LONG_AT_S1, entry="s1"),
        draft("decode.heavy", tokens=LONG_AT_H1),
        draft("decode.heavy", tokens=LONG_AT_H1, entry="s1"),
    ],
    ids=["assigned", "entered", "assigned to h1", "delegated"],
)
async def test_cancel_stops_the_engine_wherever_the_request_runs(
    cluster: LiveCluster, origin: OriginClient, wanted: Draft
) -> None:
    handle = await running(origin, wanted)
    origin.cancel(handle.id)
    end = await outcome(handle)
    assert (end.kind, end.code) == (OutcomeKind.CANCELLED, Code.CLIENT_CANCELLED)
    ended = await cluster.watcher.event(AttemptEnded, id=handle.id)
    assert ended.status == "cancelled"
    assert 2 <= ended.n_tokens < wanted.max_tokens
    await still_serves(origin, wanted.entry)


@pytest.mark.parametrize("entry", ["scheduler", "s1"])
async def test_cancelled_while_it_waits_at_the_scheduler_it_never_starts(
    cluster: LiveCluster, origin: OriginClient, entry: str
) -> None:
    blocker = await running(origin, draft("decode.heavy", tokens=LONG_AT_H1))
    handle = origin.offer(draft("decode.heavy", entry=entry))
    await cluster.watcher.event(RequestQueued, id=handle.id)
    origin.cancel(handle.id)
    end = await outcome(handle)
    assert (end.kind, end.code) == (OutcomeKind.CANCELLED, Code.CLIENT_CANCELLED)
    await stopped(cluster, origin, blocker)
    await still_serves(origin, entry)
    assert never_started(cluster, handle)


async def test_cancelled_while_it_waits_where_it_entered_it_never_starts(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    blocker = await running(origin, draft("decode", tokens=LONG_AT_S1, entry="s1"))
    handle = origin.offer(draft("decode", entry="s1"))
    admitted = await cluster.watcher.event(AttemptAdmitted, id=handle.id)
    assert admitted.position == 1
    origin.cancel(handle.id)
    assert (await outcome(handle)).kind is OutcomeKind.CANCELLED
    await cluster.watcher.event(AttemptEnded, id=handle.id, status="cancelled")
    await stopped(cluster, origin, blocker)
    await still_serves(origin, "s1")
    assert never_started(cluster, handle)


# --- deadlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["scheduler", "s1"])
async def test_deadline_that_passes_while_it_runs_stops_the_engine(
    cluster: LiveCluster, origin: OriginClient, entry: str
) -> None:
    wanted = draft("decode.heavy", tokens=LONG_AT_H1, entry=entry, deadline_ms=1_500)
    handle = origin.offer(wanted)
    end = await outcome(handle)
    assert (end.kind, end.code) == (OutcomeKind.EXPIRED, Code.DEADLINE_EXCEEDED)
    ended = await cluster.watcher.event(AttemptEnded, id=handle.id)
    assert (ended.status, ended.n_tokens < LONG_AT_H1) == ("cancelled", True)
    await still_serves(origin, entry)


@pytest.mark.parametrize(
    ("blocking", "entry"),
    [
        (draft("decode.heavy", tokens=LONG_AT_H1), "scheduler"),
        (draft("decode", tokens=LONG_AT_S1, entry="s1"), "s1"),
    ],
    ids=["at the scheduler", "where it entered"],
)
async def test_deadline_that_passes_while_it_waits_means_it_never_starts(
    cluster: LiveCluster, origin: OriginClient, blocking: Draft, entry: str
) -> None:
    blocker = await running(origin, blocking)
    handle = origin.offer(draft(blocking.capability, entry=entry, deadline_ms=300))
    end = await outcome(handle)
    assert (end.kind, end.code) == (OutcomeKind.EXPIRED, Code.DEADLINE_EXCEEDED)
    await stopped(cluster, origin, blocker)
    await still_serves(origin, entry)
    assert never_started(cluster, handle)


# --- full queues ---------------------------------------------------------------------------------


async def test_full_queue_at_the_scheduler_says_when_to_try_again(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    await outcome(origin.offer(draft("tight", tokens=2)))
    blocker = await running(origin, draft("tight", tokens=LONG_AT_H1))
    waiting = origin.offer(draft("tight", tokens=2))
    await cluster.watcher.event(RequestQueued, id=waiting.id)
    end = await outcome(origin.offer(draft("tight", tokens=2)))
    assert (end.kind, end.code) == (OutcomeKind.REJECTED, Code.QUEUE_FULL)
    assert end.retry_after_ms is not None
    assert end.retry_after_ms > 0
    assert "1 requests wait for tight" in end.message
    await stopped(cluster, origin, blocker)
    assert (await outcome(waiting)).kind is OutcomeKind.COMPLETED


async def test_full_entry_queue_says_when_to_try_again(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    blocker = await running(origin, draft("decode", tokens=LONG_AT_S1, entry="s1"))
    waiting = [origin.offer(draft("decode", tokens=2, entry="s1")) for _ in range(2)]
    for handle in waiting:
        await cluster.watcher.event(AttemptAdmitted, id=handle.id)
    end = await outcome(origin.offer(draft("decode", tokens=2, entry="s1")))
    assert (end.kind, end.code) == (OutcomeKind.REJECTED, Code.QUEUE_FULL)
    assert end.retry_after_ms is not None
    assert end.retry_after_ms > 0
    await stopped(cluster, origin, blocker)
    ends = await asyncio.gather(*map(outcome, waiting))
    assert {end.kind for end in ends} == {OutcomeKind.COMPLETED}


# --- what no worker can serve --------------------------------------------------------------------


BAD = {
    "sampling of the wrong type": (
        draft("decode", sampling=Sampling(temperature="hot")),  # type: ignore[arg-type]
        Code.INVALID,
    ),
    "no prompt": (draft("decode", prompt=0), Code.INVALID),
    "a token below zero": (
        Draft(capability="decode", prompt_ids=[3, -1], max_tokens=2),
        Code.INVALID,
    ),
}


@pytest.mark.parametrize("entry", ["scheduler", "s1"])
@pytest.mark.parametrize("bad", BAD)
async def test_request_that_cannot_be_served_fails_alone(
    cluster: LiveCluster, origin: OriginClient, bad: str, entry: str
) -> None:
    wanted, code = BAD[bad]
    beside = draft("decode.heavy", tokens=60)
    good = await running(origin, beside)
    wanted = Draft(
        capability=wanted.capability,
        prompt_ids=wanted.prompt_ids,
        max_tokens=wanted.max_tokens,
        sampling=wanted.sampling,
        entry=entry,
    )
    end = await outcome(origin.offer(wanted))
    assert (end.kind, end.code) == (OutcomeKind.FAILED, code)
    assert end.message
    assert (await outcome(good)).kind is OutcomeKind.COMPLETED
    assert good.tokens == whole_answer(beside)
    await still_serves(origin, entry)


async def test_each_choice_is_a_whole_stream_of_its_own(origin: OriginClient) -> None:
    wanted = draft("decode.heavy", tokens=9, entry="s1", sampling=Sampling(max_tokens=9, n=3))
    handle = origin.offer(wanted)
    end = await outcome(handle)
    assert (end.kind, end.n_tokens) == (OutcomeKind.COMPLETED, 27)
    assert handle.tokens == whole_answer(wanted)
