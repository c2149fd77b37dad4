"""Workers and replicas that die, hang or drain: nothing is lost silently, and they come back."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from live import (
    LiveCluster,
    delegations,
    draft,
    echo,
    exits,
    outcome,
    replica,
    tokens_came,
    whole_answer,
)

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import (
    AttemptAdmitted,
    AttemptHandedBack,
    AttemptStarted,
    ReplicaChanged,
    RequestOutcome,
    WorkerChanged,
)
from anyserve.core.messages import Code
from anyserve.core.spec import CapabilitySpec, ClusterSpec, SchedulerSpec
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.runtime.supervisor import control

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

LONG = 120
"""Tokens of a request that runs for more than two seconds."""


def two_of_a_kind() -> ClusterSpec:
    return ClusterSpec(
        name=f"t-{uuid.uuid4().hex[:8]}",
        capabilities=(
            CapabilitySpec(name="decode", mid_stream="resume"),
            CapabilitySpec(name="strict", mid_stream="fail"),
        ),
        replicas=tuple(
            replica(name, "decode", "strict", engine=echo(step_ms=20.0), concurrency=4)
            for name in ("s1", "s2")
        ),
        scheduler=SchedulerSpec(heartbeat_ms=500, lost_after_ms=3_000),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[LiveCluster]:
    live = await LiveCluster(two_of_a_kind()).up()
    yield live
    await live.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(cluster: LiveCluster) -> OriginClient:
    return await cluster.origin()


async def streaming(origin: OriginClient, wanted: Draft, count: int = 6) -> list[Handle]:
    """So many of them, all with tokens already at the client."""
    handles = [origin.offer(wanted, streamed=True) for _ in range(count)]
    await asyncio.gather(*(tokens_came(handle, 3) for handle in handles))
    return handles


def at(cluster: LiveCluster, name: str, handles: list[Handle]) -> set[str]:
    """Ids of those that were last started at this replica."""
    where: dict[str, str] = {}
    for one in cluster.watcher.events:
        if isinstance(one.event, AttemptStarted):
            where[one.event.id] = one.source
    return {handle.id for handle in handles if where.get(handle.id) == name}


async def all_started(cluster: LiveCluster, handles: list[Handle]) -> None:
    for handle in handles:
        await cluster.watcher.event(AttemptStarted, id=handle.id)


async def serves_again(cluster: LiveCluster, origin: OriginClient, name: str, mark: int) -> None:
    """The replica said that it is ready, and a request that enters there stays there."""
    await cluster.watcher.event(ReplicaChanged, since=mark, replica=name, state="ready")
    end = await outcome(origin.offer(draft("decode", entry=name)))
    assert (end.kind, end.served_by) == (OutcomeKind.COMPLETED, name)


async def all_whole(handles: list[Handle], wanted: Draft) -> None:
    ends = await asyncio.gather(*map(outcome, handles))
    assert {end.kind for end in ends} == {OutcomeKind.COMPLETED}, ends
    for handle in handles:
        assert handle.tokens == whole_answer(wanted)


async def test_worker_killed_in_mid_stream_is_replaced_and_its_streams_go_on(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    mark = cluster.watcher.mark()
    wanted = draft("decode", tokens=LONG)
    handles = await streaming(origin, wanted)
    await all_started(cluster, handles)
    hit = at(cluster, "s1", handles)
    assert hit
    await cluster.kill("worker s1")
    await all_whole(handles, wanted)
    for handle in handles:
        end = await cluster.watcher.event(RequestOutcome, id=handle.id)
        assert end.submissions == (2 if handle.id in hit else 1)
        assert delegations(cluster.watcher.events, handle.id) == []
    await cluster.watcher.event(WorkerChanged, since=mark, replica="s1", state="exited")
    await cluster.watcher.event(WorkerChanged, since=mark, replica="s1", state="ready")
    await serves_again(cluster, origin, "s1", mark)


async def test_worker_killed_in_mid_stream_fails_what_may_not_be_resumed(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    mark = cluster.watcher.mark()
    wanted = draft("strict", tokens=LONG)
    handles = await streaming(origin, wanted)
    await all_started(cluster, handles)
    hit = at(cluster, "s2", handles)
    assert 0 < len(hit) < len(handles)
    await cluster.kill("worker s2")
    for handle in handles:
        end = await outcome(handle)
        if handle.id in hit:
            assert (end.kind, end.code) == (OutcomeKind.FAILED, Code.WORKER_DIED)
            assert f"after {end.n_tokens} tokens" in end.message
        else:
            assert end.kind is OutcomeKind.COMPLETED
            assert handle.tokens == whole_answer(wanted)
    await serves_again(cluster, origin, "s2", mark)


async def test_replica_killed_in_mid_stream_is_replaced_and_its_streams_go_on(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    mark = cluster.watcher.mark()
    wanted = draft("decode", tokens=LONG)
    handles = await streaming(origin, wanted)
    await all_started(cluster, handles)
    assert at(cluster, "s2", handles)
    await cluster.kill("replica s2")
    await all_whole(handles, wanted)
    lost = await cluster.watcher.event(ReplicaChanged, since=mark, replica="s2", state="lost")
    assert lost.detail == "last will"
    await cluster.watcher.until(
        lambda: exits(cluster.watcher.events[mark:]) == ["replica s2"], "the exit of s2"
    )
    await cluster.watcher.until(
        lambda: any(
            back.incarnation > lost.incarnation
            for back in cluster.watcher.find(ReplicaChanged, replica="s2", state="ready")
        ),
        "a new life of s2 is ready",
    )
    await serves_again(cluster, origin, "s2", mark)


async def test_replica_that_hangs_is_lost_and_serves_again_when_it_goes_on(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    mark = cluster.watcher.mark()
    wanted = draft("decode", tokens=LONG)
    handles = await streaming(origin, wanted)
    await all_started(cluster, handles)
    assert at(cluster, "s1", handles)
    await cluster.ask(control.Hang(target="replica", id="s1"))
    lost = await cluster.watcher.event(ReplicaChanged, since=mark, replica="s1", state="lost")
    assert "no heartbeat" in lost.detail
    mark = cluster.watcher.mark()
    await cluster.ask(control.Resume(target="replica", id="s1"))
    await all_whole(handles, wanted)
    await serves_again(cluster, origin, "s1", mark)
    end = await cluster.watcher.event(
        ReplicaChanged, since=mark, replica="s1", state="ready", incarnation=lost.incarnation
    )
    assert end.incarnation == lost.incarnation
    # What routes by credit trusts it again, too.
    more = await streaming(origin, draft("decode", tokens=LONG), 8)
    await all_started(cluster, more)
    assert len(at(cluster, "s1", more)) == 4
    await all_whole(more, draft("decode", tokens=LONG))


async def test_draining_replica_gives_back_what_waits_and_finishes_what_runs(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    mark = cluster.watcher.mark()
    long = draft("decode", tokens=LONG, entry="s1")
    running = await streaming(origin, long, 4)
    waiting = [origin.offer(draft("decode", entry="s1")) for _ in range(3)]
    for handle in waiting:
        admitted = await cluster.watcher.event(AttemptAdmitted, id=handle.id)
        assert admitted.position > 0
    await cluster.ask(control.Drain(id="s1"))
    await cluster.watcher.event(ReplicaChanged, since=mark, replica="s1", state="draining")
    late = [origin.offer(draft("decode", entry=entry)) for entry in ("s1", "scheduler")]
    for handle in (*waiting, *late):
        end = await outcome(handle)
        assert (end.kind, end.served_by) == (OutcomeKind.COMPLETED, "s2")
        assert delegations(cluster.watcher.events, handle.id) == []
    for handle in waiting:
        back = await cluster.watcher.event(AttemptHandedBack, id=handle.id)
        assert (back.kind, back.reason) == ("return", "draining")
    await all_whole(running, long)
    assert {(await outcome(handle)).served_by for handle in running} == {"s1"}
    mark = cluster.watcher.mark()
    await cluster.ask(control.Resume(target="replica", id="s1"))
    await serves_again(cluster, origin, "s1", mark)


async def test_worker_that_hangs_keeps_its_replica_in_touch(
    cluster: LiveCluster, origin: OriginClient
) -> None:
    """Its streams stand still, nothing is lost, and they go on with it."""
    wanted = draft("decode", tokens=30)
    handles = await streaming(origin, wanted, 4)
    pid = await cluster.pid("worker s1")
    os.kill(pid, signal.SIGSTOP)
    beside = await outcome(origin.offer(draft("decode", entry="s2")))
    assert beside.served_by == "s2"
    os.kill(pid, signal.SIGCONT)
    await all_whole(handles, wanted)
    for handle in handles:
        end = await cluster.watcher.event(RequestOutcome, id=handle.id)
        assert end.submissions == 1
