"""Try a routing policy without a cluster, on the very view that the scheduler gives it.

`docs/policies.md` shows a test that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from anyserve.core.messages import Credit, Load, Offer, Registration, ReplicaState, Request
from anyserve.core.policies import CandidateView
from anyserve.core.randomness import Rng
from anyserve.core.scheduler.pool import Pool, RequestView
from anyserve.core.scheduler.ranking import Where
from anyserve.core.scheduler.state import ReplicaView


class Standing(msgspec.Struct, frozen=True):
    """How one replica stands: its slots, how many are taken, its entry queue, its KV cache."""

    id: str
    concurrency: int = 16
    in_use: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


def trial_view(
    request: Request,
    standings: Sequence[Standing],
    rng: Rng,
    homes: Mapping[str, str] | None = None,
) -> CandidateView:
    """What a policy would see of these replicas for this request.

    Those without a free slot are no candidates. `turn` is their order: the first was not chosen
    for the longest. `homes`: affinity -> the replica that took it last.
    """
    pool = Pool()
    for turn, standing in enumerate(standings):
        view = _view(request, standing)
        view.turn = turn
        if view.credit > 0:
            pool.put(view)
    pool.prefix_homes.update(homes or {})
    return RequestView(pool, request, Where(lambda view: view.credit > 0), rng)


def _view(request: Request, standing: Standing) -> ReplicaView:
    registration = Registration(
        replica=standing.id,
        incarnation=1,
        connection=1,
        revision=1,
        state=ReplicaState.READY,
        offers=[Offer(capability=request.capability)],
        concurrency=standing.concurrency,
    )
    credit = Credit(
        replica=standing.id,
        incarnation=1,
        epoch=1,
        sequence=0,
        granted_total=standing.concurrency,
        taken_total=standing.in_use,
        assigned_seen=0,
        load=Load(waiting=standing.waiting, kv_usage=standing.kv_usage),
    )
    view = ReplicaView(registration, 0)
    view.take_credit(credit, 0)
    return view
