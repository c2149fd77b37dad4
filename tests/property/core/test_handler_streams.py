"""Streams of handlers on an adversarial network: every item once, in order, of one attempt only.

Their frames carry no tokens, so what protects them is the sequence within an attempt, and the rule
that nothing is begun again once an item has reached the client.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import Chaos, Node, World

from anyserve.core import effects as fx
from anyserve.core import messages as msg
from anyserve.core.inputs import Delta, Offered, Stepped
from anyserve.core.messages import Code, Offer
from anyserve.core.spec import CapabilitySpec, ClusterSpec, EngineSpec, ReplicaSpec

ITEMS = 5


def cluster(mid_stream: Any) -> ClusterSpec:
    return ClusterSpec(
        name="test",
        capabilities=(CapabilitySpec(name="stream", mid_stream=mid_stream),),
        replicas=tuple(
            ReplicaSpec(
                id=name,
                offers=(Offer(capability="stream"),),
                engine=EngineSpec(kind="none"),
                concurrency=2,
            )
            for name in ("r1", "r2")
        ),
    )


class HandlerWorld(World):
    """A world whose workers run handlers: each step gives the next item of each request."""

    def __init__(self, spec: ClusterSpec, seed: int, chaos: Chaos) -> None:
        self.got: dict[str, list[tuple[str, int]]] = {}
        """Per request, (attempt that made it, place) of each item the client has."""
        self.ended: dict[str, fx.Outcome] = {}
        super().__init__(spec, seed, chaos)

    def ask(self) -> str:
        request = msg.Request(
            id=self.origin.next_id(),
            asked="stream",
            capability="stream",
            prompt_tokens=0,
            max_tokens=0,
            offered_ns=self.now,
            lifetime_ms=60_000,
        )
        self.ghost.offered(request, self.origin.epoch)
        self.got[request.id] = []
        asked = Offered(request=request, entry="scheduler", intended_ns=self.now, resumable=False)
        self._to_origin(asked)
        return request.id

    def _carry_out(self, source: str, effects: list[fx.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, fx.Deliver):
                assert effect.id not in self.ended, "an item after the outcome"
                said = json.loads(bytes(effect.frame.data))
                self.got[effect.id].append((said["attempt"], said["place"]))
            elif isinstance(effect, fx.Finish):
                assert effect.id not in self.ended, "a second outcome"
                self.ended[effect.id] = effect.outcome
        super()._carry_out(source, effects)

    def _step(self, name: str, node: Node) -> None:
        node.stepping = False
        if self.nodes.get(name) is not node or not node.up or not node.worker_up:
            return
        deltas = []
        for key, job in list(node.jobs.items()):
            over = job.cancelled or job.made == ITEMS
            item = {"attempt": f"{name}/{node.incarnation}/{job.attempt}", "place": job.made}
            data = None if over else msgspec.Raw(msgspec.json.encode(item))
            finish = ("cancelled" if job.cancelled else "stop") if over else None
            deltas.append(
                Delta(id=job.request.id, attempt=job.attempt, data=data, done=over, finish=finish)
            )
            job.made += 1
            if over:
                del node.jobs[key]
        self._feed(name, Stepped(deltas=deltas))
        if node.jobs:
            self._ensure_steps(name)

    def check(self) -> None:
        for request_id, items in self.got.items():
            makers = {maker for maker, _ in items}
            assert len(makers) <= 1, f"{request_id} got items of {makers}"
            assert [place for _, place in items] == list(range(len(items)))


deaths = st.tuples(st.sampled_from(["r1", "r2"]), st.integers(1, 120))


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    chaos=st.builds(
        Chaos,
        drop=st.sampled_from([0.0, 0.3]),
        duplicate=st.sampled_from([0.0, 0.3]),
        max_delay_ms=st.sampled_from([1, 20, 200]),
    ),
    mid_stream=st.sampled_from(["fail", "resume"]),
    asked=st.integers(1, 6),
    worker_dies_ms=st.lists(
        st.tuples(st.sampled_from(["r1", "r2"]), st.integers(1, 120)), max_size=3
    ),
)
def test_items_arrive_whole_or_the_stream_ends_with_a_reason(
    seed: int, chaos: Chaos, mid_stream: Any, asked: int, worker_dies_ms: list[tuple[str, int]]
) -> None:
    world = HandlerWorld(cluster(mid_stream), seed, chaos)
    world.run(100)
    requests = [world.ask() for _ in range(asked)]
    for name, ms in worker_dies_ms:
        world.run(ms)
        world.crash_worker(name)
        world.check()
    world.settle()

    world.check()
    assert set(world.ended) == set(requests)
    for request_id, outcome in world.ended.items():
        items = len(world.got[request_id])
        if outcome.kind is fx.OutcomeKind.COMPLETED:
            assert items == ITEMS
        elif outcome.code is Code.REFUSE_EXHAUSTED:  # workers died before it began, again and again
            assert (outcome.kind, items) == (fx.OutcomeKind.REJECTED, 0)
        else:
            assert outcome.kind is fx.OutcomeKind.FAILED
            broken = {Code.WORKER_DIED, Code.REPLICA_LOST, Code.RESUME_REFUSED, Code.POISONED}
            assert outcome.code in broken
            assert "a part of the answer" in outcome.message or items == 0
    if not worker_dies_ms and not chaos.drop:
        assert {one.kind for one in world.ended.values()} == {fx.OutcomeKind.COMPLETED}


@pytest.mark.parametrize("mid_stream", ["fail", "resume"])
def test_a_day_on_which_a_worker_dies_after_the_first_item(mid_stream: str) -> None:
    """The story that needs the rule, whatever Hypothesis finds."""
    world = HandlerWorld(cluster(mid_stream), 0, Chaos(in_order=True))
    world.run(100)
    request = world.ask()
    while not world.got[request]:
        world.run(1)
    before = list(world.got[request])
    for name in ("r1", "r2"):
        world.crash_worker(name)
    world.settle()

    assert world.got[request][: len(before)] == before
    world.check()
    outcome = world.ended[request]
    wanted = Code.WORKER_DIED if mid_stream == "fail" else Code.RESUME_REFUSED
    assert (outcome.kind, outcome.code) == (fx.OutcomeKind.FAILED, wanted)
