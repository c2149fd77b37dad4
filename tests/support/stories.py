"""Random days of random clusters, each drawn from one seed: what planted faults must not survive.

Hypothesis shrinks what it finds and remembers what it tried; these stories do neither, and so run
many times faster. `bad` days have any cluster and any mishap; the other kinds of days lean towards
one sort of trouble, so that what needs several mishaps at once happens within a few seeds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
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

NAMES = ("decode", "decode.heavy", "decode.huge", "embedding")
STEPS = 40

Weights = Mapping[str, int]
MISHAPS: Weights = {
    "offer": 10, "time": 8, "cancel": 2, "crash": 1, "start": 2, "worker": 1, "cut": 1, "mend": 2,
    "drain": 1, "resume": 2, "stop": 1, "begin": 2, "broker": 1, "bounce": 0, "again": 0,
}  # fmt: skip
"""What may happen next, and how often beside the rest."""


def ladder(rng: random.Random) -> dict[str, str]:
    """An acyclic map over the names, of any shape: each may lead to one that comes later."""
    order = rng.sample(NAMES, len(NAMES))
    return {
        name: rng.choice(order[place + 1 :])
        for place, name in enumerate(order[:-1])
        if rng.random() < 0.6
    }


def cluster(rng: random.Random) -> ClusterSpec:
    """One to four replicas, any ladder, every limit small enough to be met."""
    return ClusterSpec(
        name="test",
        capabilities=tuple(
            CapabilitySpec(
                name=name,
                queue_limit=rng.randint(1, 6),
                target_wait_ms=rng.choice([None, 5.0]),
                reserve=rng.choice([0.0, 0.5]),
                mid_stream=rng.choice(["fail", "resume"]),
            )
            for name in NAMES
        ),
        replicas=tuple(_replica(rng, number) for number in range(rng.randint(1, 4))),
        ladder=LadderSpec(upgrades=ladder(rng)),
        delegation=DelegationSpec(limit=rng.randint(0, 2), overload=rng.random() < 0.5),
        scheduler=SchedulerSpec(
            policy=rng.choice(["round-robin", "least-loaded", "power-of-two", "bin-packing"]),
            order=rng.choice(["fifo", "deadline"]),
            recovery_limit=rng.randint(0, 2),
            wait_for_replica_ms=rng.choice([200, 5_000]),
        ),
        request_lifetime_ms=60_000,
    )


def _replica(rng: random.Random, number: int) -> ReplicaSpec:
    return ReplicaSpec(
        id=f"r{number}",
        offers=tuple(
            Offer(
                capability=name,
                attributes=rng.choice([{}, {"model": "a"}]),
                limits=Limits(max_tokens=rng.choice([None, 8, 32])),
            )
            for name in rng.sample(NAMES, rng.randint(1, 3))
        ),
        engine=EngineSpec(kind="echo"),
        concurrency=rng.randint(1, 3),
        prefetch=rng.randint(0, 1),
        entry_queue=rng.randint(0, 3),
    )


@dataclass(frozen=True)
class Day:
    """A kind of day: what its clusters are like, and what happens in them.

    `alike`: every replica offers `decode`, without limits, and the rung above it `decode.heavy`
    but for the first, which has only a short context. `climbing`: nobody offers the lowest rung,
    and the two above it are easily lost. `waits` are the times that pass.
    """

    weights: Weights = field(default_factory=dict)
    alike: bool = False
    max_tokens: int = 8
    climbing: bool = False
    delays_ms: tuple[int, ...] = (1, 20, 400)
    waits_ms: tuple[int, ...] = (1, 5, 50, 500, 3_000, 7_000)

    def live(self, seed: int) -> World:
        """Live the day that this seed draws; the world at its end.

        Raises:
            Violated: an invariant does not hold.
        """
        rng = random.Random(seed)
        chaos = Chaos(
            drop=rng.choice([0.0, 0.2]),
            duplicate=rng.choice([0.0, 0.3]),
            max_delay_ms=rng.choice(self.delays_ms),
        )
        world = World(self._cluster(rng), seed, chaos)
        world.run(100)
        weights = {**MISHAPS, **self.weights}
        for _ in range(rng.randint(5, STEPS)):
            (mishap,) = rng.choices(list(weights), list(weights.values()))
            self._happens(mishap, world, rng)
        world.settle()
        return world

    def _cluster(self, rng: random.Random) -> ClusterSpec:
        if self.climbing:
            return climbing(rng)
        return similar(rng) if self.alike else cluster(rng)

    def _happens(self, mishap: str, world: World, rng: random.Random) -> None:
        replica = rng.choice(sorted(world.nodes))
        happenings: dict[str, Callable[[], object]] = {
            "offer": lambda: self._offer(world, rng),
            "time": lambda: world.run(rng.choice(self.waits_ms)),
            "cancel": lambda: _cancel(world, rng),
            "crash": lambda: world.crash_replica(replica),
            "start": lambda: _start_replica(world, replica),
            "bounce": lambda: _bounce_replica(world, replica),
            "worker": lambda: world.crash_worker(replica),
            "cut": lambda: world.cut(replica),
            "mend": lambda: world.mend(replica),
            "drain": lambda: world.drain(replica),
            "resume": lambda: world.resume(replica),
            "stop": lambda: world.stop_scheduler(after_sends=rng.choice([None, 0, 1, 2])),
            "begin": lambda: _start_scheduler(world, with_journal=rng.random() < 0.7),
            "again": lambda: _bounce_scheduler(world),
            "broker": world.restart_broker,
        }
        happenings[mishap]()

    def _offer(self, world: World, rng: random.Random) -> None:
        names: tuple[str, ...] = (*NAMES, "nobody.offers")
        if self.alike or self.climbing:
            names = names[: 1 if self.climbing else 2]
        for _ in range(rng.randint(1, 4)):
            world.offer(
                rng.choice(names),
                rng.choice(("scheduler", *sorted(world.nodes))),
                prompt_tokens=rng.choice([1, 6] if self.alike else [1, 6, 40]),
                max_tokens=rng.randint(1, self.max_tokens),
                priority=rng.randint(0, 2),
                deadline_ms=rng.choice([None, None, 300, 5_000]),
                attributes={}
                if self.alike or self.climbing
                else rng.choice([{}, {}, {"model": "a"}]),
            )


DAYS = {
    "bad": Day(),
    "crashing": Day(
        {"bounce": 4, "worker": 3, "offer": 6},
        alike=True,
        max_tokens=16,
        delays_ms=(5, 60),
        waits_ms=(1, 5, 20, 50),
    ),
    "restarting": Day(
        {"again": 4, "drain": 2, "resume": 3},
        alike=True,
        delays_ms=(20, 400),
        waits_ms=(1, 20, 100, 500),
    ),
    "crowded": Day(
        {"offer": 16, "cancel": 6},
        alike=True,
        max_tokens=6,
        delays_ms=(1, 20),
        waits_ms=(1, 5, 20, 50),
    ),
    "broken": Day(
        {"broker": 4, "cut": 3, "mend": 5, "bounce": 2},
        alike=True,
        delays_ms=(5, 60),
        waits_ms=(1, 5, 50),
    ),
    "climbing": Day(
        {"crash": 6, "start": 4}, climbing=True, max_tokens=16, waits_ms=(1, 5, 20, 500)
    ),
}


def similar(rng: random.Random) -> ClusterSpec:
    """Two or three replicas that could nearly all serve everything, and little room."""
    room = [
        ReplicaSpec(
            id=f"r{number}",
            offers=_similar_offers(rng, number),
            engine=EngineSpec(kind="echo"),
            concurrency=rng.randint(1, 2),
            prefetch=rng.randint(0, 1),
            entry_queue=rng.randint(0, 2),
        )
        for number in range(rng.randint(2, 3))
    ]
    rules = SchedulerSpec(recovery_limit=rng.randint(0, 3), wait_for_replica_ms=5_000)
    names = ("decode", "decode.heavy")
    shared = CapabilitySpec(
        name="",
        queue_limit=rng.choice([2, 20]),
        reserve=rng.choice([0.0, 0.5]),
        mid_stream=rng.choice(["fail", "resume", "resume"]),
    )
    return ClusterSpec(
        name="test",
        capabilities=tuple(msgspec.structs.replace(shared, name=name) for name in names),
        replicas=tuple(room),
        ladder=LadderSpec(upgrades={"decode": "decode.heavy"}),
        delegation=DelegationSpec(limit=rng.randint(1, 2), overload=rng.random() < 0.5),
        scheduler=rules,
        request_lifetime_ms=60_000,
    )


def climbing(rng: random.Random) -> ClusterSpec:
    """A door that serves nothing of it, and one or two replicas for each of the two rungs above."""
    rungs = ("decode", "decode.heavy", "decode.huge")
    served = ["embedding", *rungs[1:], rng.choice(rungs[1:])]
    return ClusterSpec(
        name="test",
        capabilities=tuple(CapabilitySpec(name=name, mid_stream="resume") for name in NAMES),
        replicas=tuple(
            ReplicaSpec(
                id=f"r{number}",
                offers=(Offer(capability=name),),
                engine=EngineSpec(kind="echo"),
                concurrency=2,
            )
            for number, name in enumerate(served)
        ),
        ladder=LadderSpec(upgrades=dict(itertools.pairwise(rungs))),
        delegation=DelegationSpec(limit=rng.randint(1, 2)),
        scheduler=SchedulerSpec(recovery_limit=3, wait_for_replica_ms=5_000),
        request_lifetime_ms=60_000,
    )


def _similar_offers(rng: random.Random, number: int) -> tuple[Offer, ...]:
    decode, heavy = Offer(capability="decode"), Offer(capability="decode.heavy")
    if number == 0:
        return (Offer(capability="decode", limits=Limits(max_tokens=8)),)
    return (heavy,) if rng.random() < 0.3 else (decode, heavy)


def _cancel(world: World, rng: random.Random) -> None:
    requests = sorted(world.ghost.pasts)
    if requests:
        world.cancel(rng.choice(requests))


def _start_replica(world: World, name: str) -> None:
    if not world.nodes[name].up:
        world.start_replica(name)


def _bounce_replica(world: World, name: str) -> None:
    world.crash_replica(name)
    world.start_replica(name)


def _bounce_scheduler(world: World) -> None:
    world.stop_scheduler()
    world.start_scheduler()


def _start_scheduler(world: World, *, with_journal: bool) -> None:
    if not world.scheduler_up:
        world.start_scheduler(with_journal=with_journal)
