"""A running cluster as a screen sees it, and what a person does to it from there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest
from live import WAIT_S, LiveCluster, draft, outcome, two_rungs

from anyserve.core.events import (
    BusTrouble,
    Envelope,
    FaultInjected,
)
from anyserve.errors import AnyServeError, UsageError
from anyserve.runtime.observer import ClusterControl, LiveSource
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.source import SourceKind
from anyserve.telemetry.thinning import LIMIT_PER_S

if TYPE_CHECKING:
    from tests.integration.cluster.conftest import Make

pytestmark = pytest.mark.timeout(240)


class Screen:
    """Reads a source as a screen does, and lets a test wait for what it shows."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.reducer = Reducer()
        self.events: list[Envelope] = []
        self.ended = False
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for batch in self.source:
            assert batch
            self.take(batch)
        self.ended = True
        self._changed.set()

    def take(self, batch: Sequence[Envelope]) -> None:
        self.events += batch
        self.reducer.apply_all(batch)
        self._changed.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        await self.source.close()
        await self._reading


async def watched(cluster: LiveCluster, *, limit_per_s: float = LIMIT_PER_S) -> Screen:
    source = LiveSource(cluster.record, limit_per_s=limit_per_s)
    await source.start()
    return Screen(source)


async def test_attached_late_it_knows_what_was_and_hears_what_comes(make: Make) -> None:
    cluster = await make(two_rungs()).up()
    origin = await cluster.origin()
    for _ in range(5):
        await outcome(origin.offer(draft("decode.heavy", entry="s1")))
    open_request = origin.offer(draft("decode", tokens=200), streamed=True)

    screen = await watched(cluster)
    late = await watched(cluster, limit_per_s=5)
    await screen.until(lambda: screen.reducer.counts["completed"] == 5)
    await screen.until(lambda: open_request.id in screen.reducer.requests)
    # Sources are not in step: what the scheduler said may come after the outcome.
    await screen.until(lambda: screen.reducer.counts["delegations"] == 5)
    snapshot = screen.reducer.snapshot()
    assert {one.id: one.state for one in snapshot.replicas} == {"h1": "ready", "s1": "ready"}
    assert snapshot.counters.completed == 5

    await outcome(origin.offer(draft("decode")))
    await screen.until(lambda: screen.reducer.counts["completed"] == 6)
    await outcome(open_request)
    await screen.until(lambda: not screen.reducer.requests)
    keys = [(one.source, one.incarnation, one.seq) for one in screen.events]
    assert len(set(keys)) == len(keys)

    facts = screen.source.facts
    assert screen.source.kind is SourceKind.LIVE
    assert facts["broker"] == cluster.record.broker.url
    assert (facts["recorder"], facts["connected"]) == ("recording", "yes")
    assert float(facts["ping_ms"]) > 0
    with open(facts["log.replica s1"], encoding="utf-8") as log:  # noqa: ASYNC230, PTH123 - a small file
        assert "replica s1 begins" in log.read()

    # The broker goes and comes back: nothing is missing afterwards.
    await cluster.kill("broker")
    await screen.until(lambda: any(_is_back(one) for one in screen.events))
    many = [origin.offer(draft("decode.heavy", tokens=2, entry="s1")) for _ in range(20)]
    many += [origin.offer(draft("decode"))]
    for handle in many:
        await outcome(handle)
    await screen.until(lambda: screen.reducer.counts["completed"] == 7 + len(many))
    await screen.until(lambda: screen.reducer.counts["delegations"] == 25)
    await screen.until(lambda: screen.reducer.gaps.missing == 0)

    # It ends with the cluster, not before.
    await screen.close()
    await cluster.close()
    await late.until(lambda: late.ended)
    assert late.source.facts["state"] == "ended"
    await late.close()

    # The other one was told a sample of so much, and still knows every total.
    assert late.reducer.snapshot().one_in > 1
    for name in ("offered", "completed", "delegations", "output_tokens"):
        assert late.reducer.counts[name] == screen.reducer.counts[name], name


def _is_back(envelope: Envelope) -> bool:
    return isinstance(envelope.event, BusTrouble) and envelope.event.kind == "reconnected"


async def test_who_cannot_keep_up_drops_counts_and_says_so(make: Make) -> None:
    cluster = await make(two_rungs()).up()
    origin = await cluster.origin()
    source = LiveSource(cluster.record, high_water_bytes=2000)
    await source.start()
    for _ in range(10):  # nobody reads meanwhile
        await outcome(origin.offer(draft("decode")))
    assert source._inbox.dropped > 0
    screen = Screen(source)
    await screen.until(lambda: any(_is_lag(one) for one in screen.events))
    # What the bus told too fast the log of the run tells later.
    await screen.until(lambda: screen.reducer.counts["completed"] == 10)
    await screen.close()
    await cluster.close()


def _is_lag(envelope: Envelope) -> bool:
    return isinstance(envelope.event, BusTrouble) and envelope.event.kind == "lag"


async def test_a_person_steers_it_and_the_events_show_what_came_of_it(make: Make) -> None:
    cluster = await make(two_rungs()).up()
    screen = await watched(cluster)
    control = ClusterControl(cluster.record, cluster.spec)

    def state(replica: str) -> str:
        known = screen.reducer.replicas.get(replica)
        return "" if known is None else known.state

    request_id = await control.send("decode.heavy", entry="s1", options={"max_tokens": "4"})
    await screen.until(lambda: screen.reducer.counts["completed"] == 1)
    assert request_id in screen.reducer.settled
    await screen.until(lambda: screen.reducer.counts["delegations"] == 1)

    await control.drain("s1")
    await screen.until(lambda: state("s1") == "draining")
    await control.resume("s1")
    await screen.until(lambda: state("s1") in {"ready", "saturated"})

    await control.partition("s1", 0.05)
    await screen.until(lambda: "partition ends" in _done(screen))
    await control.slow("h1", 50.0)
    await control.hang("h1.worker", 0.05)
    await screen.until(lambda: _done(screen).count("resume") == 2)
    await control.slow("h1", 1.0)
    await control.kill("h1.worker")
    await screen.until(lambda: any(_exited(one) for one in screen.events))
    await screen.until(lambda: "kill" in _done(screen))
    # A worker that is stopped while it starts complains in its log.
    await screen.until(lambda: screen.reducer.replicas["h1"].worker == "ready")
    acts = ["drain", "resume", "partition", "partition ends", "slow", "hang", "resume"]
    acts += ["slow ends", "kill"]
    assert _done(screen) == acts

    for wish in (control.drain("s9"), control.send("decode", entry="s9"), control.rate(2.0)):
        with pytest.raises(UsageError):
            await wish
    with pytest.raises(AnyServeError):
        await control.send("decode", options={"max_tokens": "many"})
    await control.close()
    await screen.close()
    await cluster.close()


def _done(screen: Screen) -> list[str]:
    return [one.event.action for one in screen.events if isinstance(one.event, FaultInjected)]


def _exited(envelope: Envelope) -> bool:
    event = envelope.event
    return getattr(event, "replica", "") == "h1" and getattr(event, "state", "") == "exited"
