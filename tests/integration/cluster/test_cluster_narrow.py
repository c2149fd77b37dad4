"""Clusters with no room: no delegation allowed, nobody there, everything full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from live import delegations, draft, echo, outcome, tokens_came, two_rungs

from anyserve.core.effects import OutcomeKind
from anyserve.core.events import (
    AttemptAdmitted,
    AttemptHandedBack,
    AttemptStarted,
    ReplicaChanged,
    RequestQueued,
)
from anyserve.core.messages import Code, DelegateReason
from anyserve.core.spec import DelegationSpec, SchedulerSpec
from anyserve.runtime.supervisor import control

if TYPE_CHECKING:
    from tests.integration.cluster.conftest import Make

pytestmark = pytest.mark.timeout(240)


async def test_without_delegations_what_enters_wrongly_is_rejected(make: Make) -> None:
    cluster = await make(two_rungs(delegation=DelegationSpec(limit=0))).up()
    origin = await cluster.origin()
    for wanted in (
        draft("decode.heavy", entry="s1"),
        draft("decode", prompt=300, entry="s1"),
        draft("decode", prompt=300),
        draft("decode", entry="h1"),
    ):
        handle = origin.offer(wanted)
        end = await outcome(handle)
        assert (end.kind, end.code) == (OutcomeKind.REJECTED, Code.DELEGATION_EXHAUSTED)
        assert delegations(cluster.watcher.events, handle.id) == []
        assert cluster.watcher.find(AttemptStarted, id=handle.id) == []
    for entry in ("scheduler", "s1"):
        right = await outcome(origin.offer(draft("decode", entry=entry)))
        assert (right.kind, right.served_by) == (OutcomeKind.COMPLETED, "s1")
    await cluster.close()


async def test_request_waits_for_a_lost_replica_and_is_rejected_when_none_comes(make: Make) -> None:
    rules = SchedulerSpec(heartbeat_ms=500, lost_after_ms=3_000, wait_for_replica_ms=2_000)
    cluster = await make(two_rungs(scheduler=rules)).up()
    origin = await cluster.origin()
    await cluster.ask(control.Hang(target="replica", id="h1"))
    await cluster.watcher.event(ReplicaChanged, replica="h1", state="lost")
    handle = origin.offer(draft("decode.heavy"))
    await cluster.watcher.event(RequestQueued, id=handle.id)
    end = await outcome(handle)
    assert (end.kind, end.code) == (OutcomeKind.REJECTED, Code.NO_REPLICA)
    assert "2000 ms" in end.message
    at_once = origin.offer(draft("decode.heavy", entry="s1"))
    end = await outcome(at_once)
    assert (end.kind, end.code) == (OutcomeKind.REJECTED, Code.NO_REPLICA)
    assert cluster.watcher.find(RequestQueued, id=at_once.id) == []
    assert (await outcome(origin.offer(draft("decode")))).kind is OutcomeKind.COMPLETED
    await cluster.ask(control.Resume(target="replica", id="h1"))
    await cluster.watcher.event(ReplicaChanged, replica="h1", state="ready", detail="heard again")
    assert (await outcome(origin.offer(draft("decode.heavy")))).kind is OutcomeKind.COMPLETED
    await cluster.close()


async def test_full_entry_replica_delegates_for_overload_to_a_free_slot_only(make: Make) -> None:
    crowded_cluster = two_rungs(
        small={"concurrency": 1, "entry_queue": 1, "engine": echo(256, step_ms=45.0)},
        delegation=DelegationSpec(limit=1, overload=True),
    )
    cluster = await make(crowded_cluster).up()
    origin = await cluster.origin()
    running = origin.offer(draft("decode", tokens=230, entry="s1"), streamed=True)
    await tokens_came(running, 2)
    waiting = origin.offer(draft("decode", entry="s1"))
    await cluster.watcher.event(AttemptAdmitted, id=waiting.id)
    crowded = [origin.offer(draft("decode", tokens=40, entry="s1")) for _ in range(2)]
    for handle in crowded:
        end = await outcome(handle)
        assert (end.kind, end.served_by) == (OutcomeKind.COMPLETED, "h1")
        (said,) = delegations(cluster.watcher.events, handle.id)
        assert (said.reason, said.to_capability) == (DelegateReason.OVERLOAD.value, "decode.heavy")
        back = await cluster.watcher.event(AttemptHandedBack, id=handle.id)
        assert (back.kind, back.detail) == ("delegate", "entry queue 1 of 1")
    long = [origin.offer(draft("decode.heavy", tokens=1500), streamed=True) for _ in range(2)]
    await asyncio.gather(*(tokens_came(handle, 2) for handle in long))
    late = origin.offer(draft("decode", entry="s1"))
    await cluster.watcher.event(RequestQueued, id=late.id)
    assert cluster.watcher.find(AttemptStarted, id=late.id) == []
    origin.cancel(long[0].id)
    end = await outcome(late)
    assert (end.kind, end.served_by) == (OutcomeKind.COMPLETED, "h1")
    assert len(delegations(cluster.watcher.events, late.id)) == 1
    origin.cancel(running.id)
    assert (await outcome(waiting)).served_by == "s1"
    await cluster.close()
