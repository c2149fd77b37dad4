from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from anyserve.core.events import (
    AnyEvent,
    Envelope,
    ReplicaLoad,
    RunEnded,
    RunStarted,
    WorkerChanged,
)
from anyserve.core.messages import Load, Registration, ReplicaState
from anyserve.runtime.clusters import ProcessRecord
from anyserve.runtime.supervisor.view import ClusterView


def registration(**changes: Any) -> Registration:
    made = Registration(
        replica="s1",
        incarnation=5,
        connection=1,
        revision=1,
        state=ReplicaState.READY,
        offers=[],
        concurrency=4,
    )
    return msgspec.structs.replace(made, **changes)


class Bus:
    """Hands messages to a view, as the real bus would."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.view = ClusterView(
            "anyserve/c",
            lambda replica, text: self.changes.append((replica, text)),
            lambda name, pid: ProcessRecord(name=name, pid=pid, started_s=float(pid)),
        )

    def register(self, said: Registration) -> None:
        topic = f"anyserve/c/replica/{said.replica}/reg"
        self.view.on_message(topic, msgspec.json.encode([said]), True)

    def event(self, event: AnyEvent, t: int = 0) -> None:
        envelope = Envelope(t=t, source="s1", incarnation=5, seq=0, event=event)
        self.view.on_message("anyserve/c/event/s1", msgspec.json.encode([envelope]), False)


async def test_waiting_ends_when_this_life_serves() -> None:
    bus = Bus()
    waiting = asyncio.create_task(bus.view.until_serving("s1", 5))
    for said in (
        registration(incarnation=4),
        registration(state=ReplicaState.STARTING),
    ):
        bus.register(said)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    bus.register(registration(revision=2))
    await waiting


async def test_older_registrations_are_ignored() -> None:
    bus = Bus()
    bus.register(registration(connection=2, state=ReplicaState.DRAINING))
    bus.register(registration(connection=1, revision=9))
    known = bus.view.of("s1").registration
    assert known is not None
    assert known.state is ReplicaState.DRAINING


async def test_the_worker_s_process_is_known_while_it_lives() -> None:
    bus = Bus()
    bus.event(WorkerChanged(replica="s1", state="started", pid=77))
    bus.event(WorkerChanged(replica="s1", state="loading", pid=77, detail="weights"))
    assert bus.view.of("s1").worker == ProcessRecord(name="worker s1", pid=77, started_s=77.0)
    bus.event(WorkerChanged(replica="s1", state="started", pid=78))
    bus.event(WorkerChanged(replica="s1", state="exited", pid=77))  # late news of the old one
    worker = bus.view.of("s1").worker
    assert worker is not None
    assert worker.pid == 78
    bus.event(WorkerChanged(replica="s1", state="killed", pid=78))
    assert bus.view.of("s1").worker is None
    assert bus.changes[1] == ("s1", "worker loading weights")


async def test_the_run_s_start_gives_time_zero() -> None:
    bus = Bus()
    run = RunStarted(run="r", scenario="s", seed=1, planned_requests=1, planned_s=1.0)
    bus.event(run, t=123)
    bus.event(run, t=456)
    assert await bus.view.run_started == 123
    assert not bus.view.run_ended.is_set()
    bus.event(RunEnded(reason="done"))
    assert bus.view.run_ended.is_set()


async def test_other_events_and_rubbish_change_nothing() -> None:
    bus = Bus()
    bus.event(ReplicaLoad(replica="s1", load=Load(running=3)))
    bus.view.on_message("anyserve/c/event/s1", b'{"worker.changed"', False)
    bus.view.on_message("anyserve/c/replica/s1/reg", b"", True)
    assert bus.changes == []
    assert bus.view.of("s1").registration is None
