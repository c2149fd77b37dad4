"""What the scheduler costs per request, and whether that grows with the number of replicas.

    python benchmarks/scheduler.py [--requests N]

`core + codec`: submit, assign, started, ended, credit and settled of each request through
`core.Scheduler`, with the JSON of all of them, in lists as a busy bus brings them. Registered
replicas: 10, 100, 1000, all with credit. CPU of this process. `whole process`: the scheduler as it
runs in a cluster, see `scheduler_process.py`.
Writes benchmarks/results/scheduler.json and scheduler_process.json.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterator

import msgspec
from bench import report

from anyserve.core.effects import Effect, Send
from anyserve.core.messages import (
    AnyMessage,
    Assign,
    AttemptStatus,
    Credit,
    Ended,
    Offer,
    Registration,
    ReplicaState,
    Request,
    SchedulerInbound,
    Settled,
    Started,
    Submit,
)
from anyserve.core.policies import shipped_policy
from anyserve.core.scheduler import Scheduler
from anyserve.core.spec import CapabilitySpec, ClusterSpec, SchedulerSpec

REPLICAS = (10, 100, 1000)
BATCH = 16
SLOTS = 8
BODY = msgspec.Raw(msgspec.json.encode({"prompt_ids": list(range(1000, 1128))}))


class Loop:
    """A scheduler and the messages that replicas and origins would answer with."""

    def __init__(self, replicas: int, policy: str) -> None:
        spec = ClusterSpec(
            name="bench",
            capabilities=(CapabilitySpec(name="decode"),),
            replicas=(),
            scheduler=SchedulerSpec(policy=policy),
        )
        rng = random.Random(0)
        self._scheduler = Scheduler(spec, shipped_policy(policy, rng, {}), rng)
        self._decode = msgspec.json.Decoder(list[SchedulerInbound]).decode
        self._encode = msgspec.json.Encoder().encode
        self._now = 0
        self._granted = dict.fromkeys((f"r{n}" for n in range(replicas)), SLOTS)
        self._seen = dict.fromkeys(self._granted, 0)
        self._sequence = 0
        self._scheduler.start(0)
        for replica in self._granted:
            self._hear([self._registration(replica), self._credit(replica)])

    def _registration(self, replica: str) -> Registration:
        return Registration(
            replica=replica,
            incarnation=1,
            connection=1,
            revision=1,
            state=ReplicaState.READY,
            offers=[Offer(capability="decode")],
            concurrency=SLOTS,
        )

    def _credit(self, replica: str) -> Credit:
        self._sequence += 1
        return Credit(
            replica=replica,
            incarnation=1,
            epoch=1,
            sequence=self._sequence,
            granted_total=self._granted[replica],
            taken_total=0,
            assigned_seen=self._seen[replica],
            ordinals_below=self._seen[replica],
        )

    def _hear(self, messages: list[AnyMessage]) -> list[Effect]:
        effects: list[Effect] = []
        self._now += 1_000_000
        for message in self._decode(self._encode(messages)):
            effects += self._scheduler.handle(self._now, message)
        for effect in effects:
            if isinstance(effect, Send):
                self._encode(effect.message)
        return effects

    def play(self, first: int, count: int) -> None:
        """One batch of requests from submission to settlement."""
        ids = [f"player/1/{n}" for n in range(first, first + count)]
        effects = self._hear([Submit(request=self._request(name), epoch=1) for name in ids])
        assigns = [
            (effect.to, effect.message)
            for effect in effects
            if isinstance(effect, Send) and isinstance(effect.message, Assign)
        ]
        assert len(assigns) == count
        self._hear(list(self._started(assigns)))
        self._hear(list(self._ended(assigns)))
        below = first + count
        self._hear([Settled(origin="player", incarnation=1, ids=ids, settled_below=below)])

    def _request(self, name: str) -> Request:
        return Request(
            id=name,
            asked="decode",
            capability="decode",
            prompt_tokens=128,
            max_tokens=16,
            offered_ns=self._now,
            body=BODY,
        )

    def _started(self, assigns: list[tuple[str, Assign]]) -> Iterator[AnyMessage]:
        for replica, assign in assigns:
            self._seen[replica] += 1
            key = {"id": assign.request.id, "attempt": assign.attempt}
            yield Started(replica=replica, incarnation=1, **key)
            yield self._credit(replica)

    def _ended(self, assigns: list[tuple[str, Assign]]) -> Iterator[AnyMessage]:
        for replica, assign in assigns:
            self._granted[replica] += 1
            key = {"id": assign.request.id, "attempt": assign.attempt}
            yield Ended(replica=replica, incarnation=1, status=AttemptStatus.COMPLETED, **key)
            yield self._credit(replica)


def measure(replicas: int, policy: str, requests: int) -> dict[str, object]:
    loop = Loop(replicas, policy)
    loop.play(1, BATCH)
    began = time.process_time()
    for first in range(BATCH + 1, requests, BATCH):
        loop.play(first, BATCH)
    spent = time.process_time() - began
    per_request_us = 1e6 * spent / (requests - BATCH)
    return {
        "replicas": replicas,
        "policy": policy,
        "us/request": per_request_us,
        "requests/s of CPU": 1e6 / per_request_us,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the whole process, each")
    arguments = parser.parse_args()
    requests = arguments.requests
    rows = [
        measure(replicas, policy, requests)
        for policy in ("least-loaded", "power-of-two")
        for replicas in REPLICAS
    ]
    report("scheduler", "core + codec of the scheduler", rows)
    from scheduler_process import measure_process  # noqa: PLC0415 - it imports from here

    seconds = arguments.seconds
    whole = [asyncio.run(measure_process(replicas, seconds)) for replicas in REPLICAS]
    report("scheduler_process", "the scheduler's whole process", whole, target_per_s=5000)


if __name__ == "__main__":
    main()
