"""What a state machine remembers, as a hashable value: equal forms, equal behaviour from now on.

A form holds everything that can still change what the machine does, and leaves out what cannot:
indexes that core builds again from the rest, heap entries that are passed over, and running
numbers whose only use is to keep the entries of a heap apart. Dicts keep their order, since core
may walk them; heaps are written in the order in which they would be emptied.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from types import FunctionType, MethodType
from typing import Any

import msgspec
from ghost import Ghost
from known import Ear, Life, Past, Told
from violations import Stories

from anyserve.core.capability import Ladder
from anyserve.core.lifecycle import SlotState, TicketState
from anyserve.core.origin import Origin
from anyserve.core.origin.pending import Pending
from anyserve.core.policies import LeastLoaded
from anyserve.core.replica import Replica
from anyserve.core.replica.slot import Slot
from anyserve.core.scheduler import Scheduler
from anyserve.core.scheduler.pool import Pool
from anyserve.core.scheduler.queues import Queues
from anyserve.core.scheduler.rates import CompletionRate
from anyserve.core.scheduler.routing import Router
from anyserve.core.scheduler.state import ReplicaView
from anyserve.core.seen import SettledIds

LEFT_OUT: Mapping[type, frozenset[str]] = {
    # `_router` and `_registry.pools` are made of the views; turns are read by `round-robin` only.
    Scheduler: frozenset({"_router", "_turns", "_rng", "_spec", "_rules", "_handlers", "_ladder"}),
    ReplicaView: frozenset({"turn"}),
    Replica: frozenset({"_pushes", "_spec", "_rules", "_handlers", "_ladder", "_due"}),
    Slot: frozenset({"behind", "repeat_ns"}),
    Origin: frozenset({"_handlers", "_ladder", "_looks"}),
    Pending: frozenset({"known_to", "known_to_others"}),
    Queues: frozenset({"_pushes"}),
    Ghost: frozenset({"spec", "rules", "_above", "_limits", "_reserves", "_waited"}),
    Past: frozenset({"request"}),
    SettledIds: frozenset({"_recent"}),
}
UNORDERED = (Ghost, Life, Past, Told, Ear)
"""Whose dicts nobody walks for the sake of their order."""
ATOMS = (int, str, float, bool, bytes, type(None), Enum)
CONSTANT = (Ladder, LeastLoaded, Router, Pool, CompletionRate, Stories, FunctionType, MethodType)
"""What never changes, is made of the rest, or is only read to say when to come again."""

Heap = list[tuple[Any, ...]]
Met = dict[int, tuple[int, Any]]
"""What was met, by identity: its number, and itself, or something else might get its identity."""


def form(thing: object) -> Hashable:
    """The form of a machine, or of anything that a machine is made of."""
    return _form(thing, {})


def _form(thing: Any, met: Met) -> Hashable:
    if isinstance(thing, ATOMS):
        return thing
    if isinstance(thing, CONSTANT):
        return None
    if isinstance(thing, msgspec.Struct):
        return type(thing).__name__, msgspec.msgpack.encode(thing)
    return _form_of_many(thing, met)


def _form_of_many(thing: Any, met: Met) -> Hashable:
    if isinstance(thing, tuple):
        return tuple(_form(item, met) for item in thing)
    if isinstance(thing, set | frozenset):
        return frozenset(_form(item, met) for item in thing)
    if id(thing) in met:
        return "met", met[id(thing)][0]
    met[id(thing)] = len(met), thing
    if isinstance(thing, list | deque):
        return tuple(_form(item, met) for item in thing)
    if isinstance(thing, dict | defaultdict):
        return tuple((_form(key, met), _form(value, met)) for key, value in thing.items())
    return _form_of_fields(thing, met)


def _form_of_fields(thing: Any, met: Met) -> Hashable:
    unordered = isinstance(thing, UNORDERED)
    fields = []
    for name, value in _fields(thing):
        rest = _form(REDUCED.get((type(thing), name), _same)(value), met)
        if unordered and isinstance(value, dict):
            assert isinstance(rest, tuple)
            rest = frozenset(rest[1:] if rest and rest[0] == "met" else rest)
        fields.append((name, rest))
    return type(thing).__name__, *fields


def _fields(thing: Any) -> list[tuple[str, Any]]:
    left_out = LEFT_OUT.get(type(thing), frozenset())
    names = getattr(thing, "__dict__", None)
    if names is None:
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        fields = [(name, getattr(thing, name)) for name in slots if name not in left_out]
        return [*fields, ("replicas", thing.replicas())] if isinstance(thing, Pending) else fields
    fields = [(name, value) for name, value in names.items() if name not in left_out]
    if isinstance(thing, Origin):
        return [*fields, ("_looks", _looks(thing))]
    if isinstance(thing, Replica):
        return [*fields, ("_due", _due(thing))]
    return fields


def _same(value: Any) -> Any:
    return value


def _queued_slots(heap: Heap) -> Heap:
    live = [entry for entry in heap if entry[2].state in (SlotState.HELD, SlotState.WAITING)]
    return [(order, slot.key) for order, _, slot in sorted(live, key=lambda entry: entry[:2])]


def _lanes(lanes: dict[Any, Heap]) -> dict[Any, list[str]]:
    waiting = {}
    for lane, heap in lanes.items():
        tickets = [entry[2] for entry in sorted(heap, key=lambda entry: entry[:2])]
        ids = [one.id for one in tickets if one.lane == lane and one.state is TicketState.QUEUED]
        if ids:
            waiting[lane] = ids
    return waiting


def _due(replica: Replica) -> list[tuple[int, Any]]:
    """When the end of which attempt is said again, in the order of leaving; None: a heartbeat.
    Those of settled attempts are passed over."""
    planned = replica._due.planned()
    there = [(at_ns, slot) for at_ns, slot in planned if slot is None or not slot.dropped]
    return [(at_ns, None if slot is None else slot.key) for at_ns, slot in there]


def _looks(origin: Origin) -> list[tuple[int, list[str]]]:
    """When which open request is looked after. Looks after others change nothing."""
    found = []
    for at_ns, ids in sorted(origin._looks._at.items()):
        due = [one for one in dict.fromkeys(ids) if one in origin._pending]
        if due:
            found.append((at_ns, due))
    return found


def _over(lives: dict[str, Any]) -> dict[str, tuple[int, int, list[int]]]:
    """What is over, without the numbers that the watermark has passed meanwhile."""
    return {
        origin: (life.incarnation, life.below, sorted(n for n in life.rest if n >= life.below))
        for origin, life in lives.items()
    }


REDUCED: Mapping[tuple[type, str], Callable[[Any], Any]] = {
    (Replica, "_held"): _queued_slots,
    (Replica, "_waiting"): _queued_slots,
    (Queues, "_lanes"): _lanes,
    (SettledIds, "_lives"): _over,
}
