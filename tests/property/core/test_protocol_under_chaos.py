"""Invariants 1 to 8 of the architecture, over the whole protocol on an adversarial network.

Hypothesis chooses the cluster, what is offered, what breaks and when; `support/world.py` carries
it out on core's real state machines and raises `Violated` with the invariant's number and name.
`ANYSERVE_PROPERTY=long` runs many more and longer stories, other ones every time.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
)
from world import Chaos, World

from anyserve.core.messages import Limits, Offer
from anyserve.core.spec import (
    CapabilitySpec,
    ClusterSpec,
    DelegationSpec,
    EngineSpec,
    LadderSpec,
    ReplicaSpec,
    SchedulerSpec,
)

LONG = os.environ.get("ANYSERVE_PROPERTY") == "long"
RUNGS = ("decode", "decode.heavy", "decode.huge", "embedding")
POLICIES = ("round-robin", "least-loaded", "power-of-two", "bin-packing")

offers = st.lists(
    st.builds(
        Offer,
        capability=st.sampled_from(RUNGS),
        attributes=st.sampled_from([{}, {"model": "a"}]),
        limits=st.builds(Limits, max_tokens=st.sampled_from([None, 8, 32])),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda offer: offer.capability,
)
shapes = st.tuples(offers, st.integers(1, 3), st.integers(0, 1), st.integers(0, 3))


@st.composite
def ladders(draw: st.DrawFn) -> dict[str, str]:
    """Acyclic maps of any shape: in a random order each name may lead to a later one."""
    order = draw(st.permutations(RUNGS))
    upgrades = {}
    for place, name in enumerate(order[:-1]):
        above = draw(st.none() | st.sampled_from(order[place + 1 :]))
        if above is not None:
            upgrades[name] = above
    return upgrades


@st.composite
def clusters(draw: st.DrawFn) -> ClusterSpec:
    replicas = tuple(
        ReplicaSpec(
            id=f"r{index}",
            offers=tuple(some),
            engine=EngineSpec(kind="echo"),
            concurrency=concurrency,
            prefetch=prefetch,
            entry_queue=entry_queue,
        )
        for index, (some, concurrency, prefetch, entry_queue) in enumerate(
            draw(st.lists(shapes, min_size=1, max_size=4))
        )
    )
    return ClusterSpec(
        name="test",
        capabilities=tuple(
            CapabilitySpec(
                name=name,
                queue_limit=draw(st.integers(1, 6)),
                target_wait_ms=draw(st.sampled_from([None, 5.0])),
                reserve=draw(st.sampled_from([0.0, 0.5])),
                mid_stream=draw(st.sampled_from(["fail", "resume"])),
            )
            for name in RUNGS
        ),
        replicas=replicas,
        ladder=LadderSpec(upgrades=draw(ladders())),
        delegation=DelegationSpec(limit=draw(st.integers(0, 2)), overload=draw(st.booleans())),
        scheduler=SchedulerSpec(
            policy=draw(st.sampled_from(POLICIES)),
            order=draw(st.sampled_from(["fifo", "deadline"])),
            recovery_limit=draw(st.integers(0, 2)),
            wait_for_replica_ms=draw(st.sampled_from([200, 5_000])),
        ),
        request_lifetime_ms=60_000,
    )


chaos = st.builds(
    Chaos,
    drop=st.sampled_from([0.0, 0.2]),
    duplicate=st.sampled_from([0.0, 0.3]),
    max_delay_ms=st.sampled_from([1, 20, 400]),
)


class Protocol(RuleBasedStateMachine):
    """One cluster's bad day."""

    requests: Bundle[str] = Bundle("requests")

    world: World

    @initialize(spec=clusters(), seed=st.integers(0, 2**32 - 1), chaos=chaos)
    def begin(self, spec: ClusterSpec, seed: int, chaos: Chaos) -> None:
        self.world = World(spec, seed, chaos)
        self.world.run(100)

    def _replica(self, index: int) -> str:
        names = sorted(self.world.nodes)
        return names[index % len(names)]

    @rule(
        target=requests,
        capability=st.sampled_from((*RUNGS, "nobody.offers")),
        entry=st.none() | st.integers(0, 3),
        prompt_tokens=st.sampled_from([1, 6, 40]),
        max_tokens=st.integers(1, 8),
        priority=st.integers(0, 2),
        deadline_ms=st.sampled_from([None, None, 300, 5_000]),
        attributes=st.sampled_from([{}, {}, {"model": "a"}, {"model": "b"}]),
        times=st.integers(1, 4),
    )
    def offer(
        self,
        capability: str,
        entry: int | None,
        prompt_tokens: int,
        max_tokens: int,
        priority: int,
        deadline_ms: int | None,
        attributes: dict[str, str],
        times: int,
    ) -> MultipleResults[str]:
        return multiple(
            *(
                self.world.offer(
                    capability,
                    "scheduler" if entry is None else self._replica(entry),
                    prompt_tokens=prompt_tokens,
                    max_tokens=max_tokens,
                    priority=priority,
                    deadline_ms=deadline_ms,
                    attributes=attributes,
                )
                for _ in range(times)
            )
        )

    @rule(request=requests)
    def cancel(self, request: str) -> None:
        self.world.cancel(request)

    @rule(ms=st.sampled_from([1, 5, 50, 500, 3_000, 7_000]))
    def let_time_pass(self, ms: int) -> None:
        self.world.run(ms)

    @rule(index=st.integers(0, 3))
    def crash_replica(self, index: int) -> None:
        self.world.crash_replica(self._replica(index))

    @rule(index=st.integers(0, 3))
    def start_replica(self, index: int) -> None:
        if not self.world.nodes[self._replica(index)].up:
            self.world.start_replica(self._replica(index))

    @rule(index=st.integers(0, 3))
    def crash_worker(self, index: int) -> None:
        self.world.crash_worker(self._replica(index))

    @rule(index=st.integers(0, 3))
    def cut(self, index: int) -> None:
        self.world.cut(self._replica(index))

    @rule(index=st.integers(0, 3))
    def mend(self, index: int) -> None:
        self.world.mend(self._replica(index))

    @rule(index=st.integers(0, 3))
    def drain(self, index: int) -> None:
        self.world.drain(self._replica(index))

    @rule(index=st.integers(0, 3))
    def resume(self, index: int) -> None:
        self.world.resume(self._replica(index))

    @rule(after_sends=st.none() | st.integers(0, 3))
    def stop_scheduler(self, after_sends: int | None) -> None:
        self.world.stop_scheduler(after_sends=after_sends)

    @rule(down_ms=st.sampled_from([1, 50, 8_000]))
    def restart_broker(self, down_ms: int) -> None:
        self.world.restart_broker(down_ms=down_ms)

    @rule(with_journal=st.booleans())
    def start_scheduler(self, with_journal: bool) -> None:
        if not self.world.scheduler_up:
            self.world.start_scheduler(with_journal=with_journal)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


Protocol.TestCase.settings = settings(
    max_examples=20_000 if LONG else 400,
    stateful_step_count=120 if LONG else 50,
    derandomize=not LONG,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestProtocol = pytest.mark.timeout(3_600 if LONG else 120)(Protocol.TestCase)
