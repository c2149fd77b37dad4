"""The scheduler or the broker dies under load: everything completes, nothing is counted twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from live import (
    LiveCluster,
    delegations,
    draft,
    exits,
    outcome,
    tokens_came,
    two_rungs,
    whole_answer,
)

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import (
    ReplicaChanged,
    RequestDelegated,
    RequestQueued,
    SchedulerStarted,
)
from anyserve.runtime.origin import Draft, Handle, OriginClient
from anyserve.runtime.supervisor.progress import Notice

if TYPE_CHECKING:
    from tests.integration.cluster.conftest import Make

pytestmark = pytest.mark.timeout(240)

LONG = draft("decode.heavy", tokens=300)
WAITING = [draft("decode.heavy", tokens=12) for _ in range(3)]
DELEGATED = [draft("decode.heavy", tokens=12, entry="s1") for _ in range(2)]
TOO_LONG = [draft("decode", prompt=300, tokens=12, entry=entry) for entry in ("s1", "scheduler")]
AT_S1 = [draft("decode", tokens=200, entry=entry) for entry in ("s1", "scheduler")]


async def under_load(cluster: LiveCluster, origin: OriginClient) -> list[tuple[Draft, Handle]]:
    """h1 runs a long request; others wait for it, entered at s1 or not; s1 runs two of its own."""
    long = [(one, origin.offer(one, streamed=True)) for one in (LONG, *AT_S1)]
    await asyncio.gather(*(tokens_came(handle, 3) for _, handle in long))
    queued = [(one, origin.offer(one)) for one in (*WAITING, *DELEGATED, *TOO_LONG)]
    for _, handle in queued:
        await cluster.watcher.event(RequestQueued, id=handle.id)
    return long + queued


async def all_complete(cluster: LiveCluster, load: list[tuple[Draft, Handle]]) -> None:
    for wanted, handle in load:
        end = await outcome(handle)
        assert end.kind is OutcomeKind.COMPLETED, (wanted.capability, wanted.entry, end)
        assert handle.tokens == whole_answer(wanted)
        assert end.served_by == ("s1" if wanted in AT_S1 else "h1")


def counts(cluster: LiveCluster, load: list[tuple[Draft, Handle]]) -> list[int]:
    """The highest count of delegations that was said of each."""
    return [
        max((said.count for said in delegations(cluster.watcher.events, handle.id)), default=0)
        for _, handle in load
    ]


async def test_scheduler_killed_under_load_goes_on_from_its_journal(make: Make) -> None:
    cluster = await make(two_rungs(large={"concurrency": 1})).up()
    origin = await cluster.origin()
    load = await under_load(cluster, origin)
    before = counts(cluster, load)
    assert sum(before) == len(DELEGATED) + len(TOO_LONG)
    await cluster.kill("scheduler")
    back = await cluster.watcher.event(SchedulerStarted, epoch=2)
    assert back.replayed > 0
    late = draft("decode.heavy", entry="s1")
    load.append((late, origin.offer(late)))
    await all_complete(cluster, load)
    assert counts(cluster, load) == [*before, 1]
    assert exits(cluster.watcher.events) == ["scheduler"]
    assert cluster.watcher.find(ReplicaChanged, state="lost") == []
    await cluster.close()


async def test_scheduler_killed_twice_still_counts_each_delegation_once(make: Make) -> None:
    cluster = await make(two_rungs(large={"concurrency": 1})).up()
    origin = await cluster.origin()
    load = await under_load(cluster, origin)
    for epoch in (2, 3):
        await cluster.kill("scheduler")
        await cluster.watcher.event(SchedulerStarted, epoch=epoch)
    await all_complete(cluster, load)
    assert max(counts(cluster, load)) == 1
    assert {said.count for said in cluster.watcher.find(RequestDelegated)} == {1}
    await cluster.close()


async def test_broker_killed_under_load_comes_back_and_nobody_counts_as_lost(make: Make) -> None:
    cluster = await make(two_rungs(large={"concurrency": 1})).up()
    origin = await cluster.origin()
    load = await under_load(cluster, origin)
    await cluster.kill("broker")
    mark = cluster.watcher.mark()
    await cluster.watcher.until(
        lambda: {"scheduler", "s1", "h1"} <= {one.source for one in cluster.watcher.events[mark:]},
        "all are connected again",
    )
    await all_complete(cluster, load)
    late = [draft("decode.heavy", entry="s1"), draft("decode")]
    more = [(one, origin.offer(one)) for one in late]
    for wanted, handle in more:
        assert (await outcome(handle)).kind is OutcomeKind.COMPLETED
        assert handle.tokens == whole_answer(wanted)
    assert max(counts(cluster, load + more)) == 1
    assert cluster.watcher.find(ReplicaChanged, state="lost") == []
    told = [line.text for line in cluster.lines if isinstance(line, Notice)]
    assert [text for text in told if text.startswith("the broker ended")] == told != []
    await cluster.close()
