"""Random days of random clusters, all of it drawn from one seed: what planted faults must survive.

Hypothesis shrinks what it finds and remembers what it tried; these stories do neither, and so run
many times faster and give the same story for the same seed for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable

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


def bad_day(seed: int) -> None:
    """A cluster of any shape, a network of any badness, and everything that can go wrong.

    Raises:
        Violated: an invariant does not hold.
    """
    rng = random.Random(seed)
    chaos = Chaos(
        drop=rng.choice([0.0, 0.2]),
        duplicate=rng.choice([0.0, 0.3]),
        max_delay_ms=rng.choice([1, 20, 400]),
    )
    world = World(cluster(rng), seed, chaos)
    world.run(100)
    for _ in range(rng.randint(5, STEPS)):
        _mishap(world, rng)
    world.settle()


def _mishap(world: World, rng: random.Random) -> None:
    replica = rng.choice(sorted(world.nodes))
    some: list[tuple[int, Callable[[], object]]] = [
        (10, lambda: _offer(world, rng)),
        (8, lambda: world.run(rng.choice([1, 5, 50, 500, 3_000, 7_000]))),
        (2, lambda: _cancel(world, rng)),
        (1, lambda: world.crash_replica(replica)),
        (2, lambda: None if world.nodes[replica].up else world.start_replica(replica)),
        (1, lambda: world.crash_worker(replica)),
        (1, lambda: world.cut(replica)),
        (2, lambda: world.mend(replica)),
        (1, lambda: world.drain(replica)),
        (2, lambda: world.resume(replica)),
        (1, lambda: world.stop_scheduler(after_sends=rng.choice([None, 0, 1, 2]))),
        (2, lambda: _start_scheduler(world, rng)),
        (1, world.restart_broker),
    ]
    weights = [weight for weight, _ in some]
    rng.choices(some, weights)[0][1]()


def _offer(world: World, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        world.offer(
            rng.choice((*NAMES, "nobody.offers")),
            rng.choice(("scheduler", *sorted(world.nodes))),
            prompt_tokens=rng.choice([1, 6, 40]),
            max_tokens=rng.randint(1, 8),
            priority=rng.randint(0, 2),
            deadline_ms=rng.choice([None, None, 300, 5_000]),
            attributes=rng.choice([{}, {}, {"model": "a"}, {"model": "b"}]),
        )


def _cancel(world: World, rng: random.Random) -> None:
    requests = sorted(world.ghost.pasts)
    if requests:
        world.cancel(rng.choice(requests))


def _start_scheduler(world: World, rng: random.Random) -> None:
    if not world.scheduler_up:
        world.start_scheduler(with_journal=rng.random() < 0.7)
