"""How long a request took from its replica to the engine of its worker in a recorded run: the
`sim.handover` with which a simulation of it loses as much time there as it did.

An engine that stands still begins at once with what it is given. What an attempt waited for its
first place in a step is the hand-over, then, where nothing else of its replica was in the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from anyserve.core.events import AttemptEnded, Envelope
from anyserve.sim.enough import median_ns


class _Stay(NamedTuple):
    """One attempt with an engine, by its replica's clock."""

    began_ns: int
    wait_ns: int
    end_ns: int


def handover_time_ns(envelopes: Iterable[Envelope]) -> int | None:
    """The median over the attempts that found their engine idle; None where they are too few."""
    stays: dict[tuple[str, int], list[_Stay]] = {}
    for envelope in envelopes:
        event = envelope.event
        if isinstance(event, AttemptEnded):
            life = (envelope.source, envelope.incarnation)
            stays.setdefault(life, []).append(_stay(event))
    return median_ns([wait for some in stays.values() for wait in _waits_for_idle(some)])


def _stay(ended: AttemptEnded) -> _Stay:
    times = ended.times
    began_ns = times.received_ns + times.queue_ns
    spent_ns = times.engine_wait_ns + times.prefill_ns + times.decode_ns
    return _Stay(began_ns, times.engine_wait_ns, began_ns + spent_ns)


def _waits_for_idle(stays: list[_Stay]) -> Iterable[int]:
    """What those waited that came when all before them had ended."""
    busy_until_ns = 0
    for stay in sorted(stays, key=attrgetter("began_ns")):
        # Where no wait is known, as of embeddings, none was told.
        if stay.began_ns >= busy_until_ns and stay.wait_ns:
            yield stay.wait_ns
        busy_until_ns = max(busy_until_ns, stay.end_ns)
