"""The small systems that are searched whole: all of `SYSTEMS` in CI, `LARGE` ones on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from msgspec.structs import replace as replaced
from small_world import Small

from anyserve.core.messages import Limits, Offer
from anyserve.core.spec import (
    CapabilitySpec,
    ClusterSpec,
    DelegationSpec,
    EngineSpec,
    LadderSpec,
    ReplicaSpec,
)

LOW, HIGH, HIGHEST, OTHER = "decode", "decode.heavy", "decode.huge", "embedding"
LIGHT, HEAVY = Offer(capability=LOW), Offer(capability=HIGH)
SHORT = Offer(capability=LOW, limits=Limits(max_tokens=2))


def _replica(name: str, *offers: Offer, entry_queue: int = 1) -> ReplicaSpec:
    engine = EngineSpec(kind="echo")
    return ReplicaSpec(
        id=name, offers=offers, engine=engine, concurrency=1, entry_queue=entry_queue
    )


def _cluster(*replicas: ReplicaSpec, limit: int = 1, overload: bool = False) -> ClusterSpec:
    names = (LOW, HIGH, HIGHEST, OTHER)
    return ClusterSpec(
        name="small",
        capabilities=tuple(CapabilitySpec(name=name, mid_stream="resume") for name in names),
        replicas=replicas,
        ladder=LadderSpec(upgrades={LOW: HIGH, HIGH: HIGHEST}),
        delegation=DelegationSpec(limit=limit, overload=overload),
    )


L1, H1 = _replica("s1", LIGHT), _replica("h1", HEAVY)
ONE_EACH = _cluster(L1, H1)
E1 = _replica("e1", Offer(capability=OTHER))
CLIMB = _cluster(E1, H1, _replica("x1", Offer(capability=HIGHEST)))
CLIMB_TWICE = replaced(CLIMB, delegation=DelegationSpec(limit=2))
WRONG_DOOR = (HIGH, "s1")
"""What enters at a replica that has to delegate it."""
ONE = Small(ONE_EACH, (WRONG_DOOR,))
TWO = replace(ONE, offers=(WRONG_DOOR, WRONG_DOOR), in_order=True)
QUIET = replace(ONE, duplicates=0, crashes=0)


def _dying(*what: str) -> frozenset[str]:
    return frozenset(what)


SYSTEMS: Mapping[str, Small] = {
    "wrong door": ONE,
    "limit 0": replace(ONE, spec=_cluster(L1, H1, limit=0)),
    "limit 1, a rung is lost": replace(ONE, spec=CLIMB, offers=((LOW, "e1"),)),
    "limit 2, a rung is lost": replace(ONE, spec=CLIMB_TWICE, offers=((LOW, "e1"),), duplicates=0),
    "three replicas": replace(ONE, spec=_cluster(L1, H1, _replica("h2", HEAVY))),
    "nobody offers it": replace(
        ONE,
        spec=_cluster(E1, H1),
        offers=((LOW, "scheduler"),),
    ),
    "too long": replace(ONE, spec=_cluster(_replica("s1", SHORT), H1), offers=((LOW, "s1"),)),
    "overload": replace(
        TWO,
        spec=_cluster(_replica("s1", LIGHT, entry_queue=0), H1, overload=True),
        offers=((LOW, "s1"), (LOW, "s1")),
        crashes=0,
    ),
    "two requests, a duplicate": replace(TWO, crashes=0),
    "two requests, a crash": replace(TWO, duplicates=0),
    "a replica returns": replace(
        ONE, duplicates=0, mortal=_dying("replica", "return"), in_order=True
    ),
    "a worker dies": replace(ONE, duplicates=0, mortal=_dying("worker")),
    "tokens are lost": replace(QUIET, drops=1, duplicates=1, max_tokens=2),
    "a cancel": replace(QUIET, cancels=1, duplicates=1),
    "a drain": replace(QUIET, drains=1, duplicates=1),
    "a slow process": replace(QUIET, wakes=1),
    "the scheduler dies": replace(
        ONE, duplicates=0, mortal=_dying("scheduler"), in_order=True, at_once=True
    ),
}

EVERY_ORDER = replace(TWO, in_order=False)
LARGE: Mapping[str, Small] = {
    "the journal is lost": replace(
        ONE, duplicates=0, mortal=_dying("scheduler", "amnesia"), in_order=True, at_once=True
    ),
    "limit 2, a rung is lost, a duplicate": replace(ONE, spec=CLIMB_TWICE, offers=((LOW, "e1"),)),
    "two requests, a crash, every order": replace(EVERY_ORDER, duplicates=0, at_once=True),
}
"""Searched whole as they are."""
REDUCED: Mapping[str, Small] = {
    "two requests, a duplicate and a crash": EVERY_ORDER,
    "a replica returns, every order": replace(
        SYSTEMS["a replica returns"], duplicates=1, in_order=False
    ),
    "the scheduler dies, every order": replace(
        SYSTEMS["the scheduler dies"], in_order=False, at_once=False
    ),
    "two requests, three replicas": replace(
        EVERY_ORDER, spec=_cluster(L1, H1, _replica("h2", HEAVY))
    ),
}
"""Searched by representatives (`spent.py`): all of it in every order, and at any time."""
