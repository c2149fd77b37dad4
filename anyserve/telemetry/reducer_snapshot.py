"""From the reducer's own state to the frozen snapshot that others see."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from anyserve.telemetry.reducer_state import quantile
from anyserve.telemetry.views import Counters, QueueView, RoutingCell, SecondView, Snapshot, Stage

if TYPE_CHECKING:
    from anyserve.telemetry.reducer import Reducer

_HELD = frozenset({Stage.BOUND, Stage.RUNNING, Stage.STREAMING})
_COUNTER_NAMES = tuple(Counters.__dataclass_fields__)


def take_snapshot(state: Reducer) -> Snapshot:
    """Everything a reducer knows, frozen; costs time in proportion to what it remembers."""
    held = Counter(one.replica for one in state.requests.values() if one.stage in _HELD)
    return Snapshot(
        now_ns=state.now_ns,
        run=state.run,
        epoch=state.epoch,
        policy=state.policy,
        events_missing=state.gaps.missing + state.unheard,
        in_flight=len(state.requests) + state.untold,
        counters=Counters(**{name: state.counts[name] for name in _COUNTER_NAMES}),
        by_code=dict(sorted(state.by_code.items())),
        requests=tuple(
            one.view() for one in islice(state.requests.values(), state.memory.shown_in_flight)
        ),
        recent=tuple(one.view() for one in state.settled.values()),
        replicas=tuple(
            replica.view(held[name]) for name, replica in sorted(state.replicas.items())
        ),
        queues=_queues(state),
        routing=tuple(
            RoutingCell(asked, replica, started, delegated)
            for (asked, replica), (started, delegated) in sorted(state.routing.items())
        ),
        ledger=tuple(entry.view() for entry in state.ledger),
        phases=tuple(state.phases),
        faults=tuple(state.faults),
        notices=tuple(state.notices),
        seconds=tuple(
            SecondView(second, *counts) for second, counts in sorted(state.seconds.items())
        ),
        ttft_p50_ms=quantile(state.ttfts_ms, 0.5),
        ttft_p95_ms=quantile(state.ttfts_ms, 0.95),
        e2e_p50_ms=quantile(state.e2es_ms, 0.5),
        e2e_p95_ms=quantile(state.e2es_ms, 0.95),
        series=state.series.view(),
        lately=state.lately.view(state.now_ns),
        one_in=state.one_in,
    )


def _queues(state: Reducer) -> tuple[QueueView, ...]:
    waiting = Counter(
        one.capability or one.asked for one in state.requests.values() if one.stage is Stage.QUEUED
    )
    offered = {name for replica in state.replicas.values() for name in replica.offers}
    names = offered | state.by_capability.keys() | state.queues.keys()
    return tuple(
        QueueView(
            capability=name,
            waiting=state.queues.get(name),
            queued=waiting[name],
            offered=counts["offered"],
            completed=counts["completed"],
            failed=counts["failed"],
            rejected=counts["rejected"],
            delegated=counts["delegated"],
        )
        for name in sorted(names)
        for counts in (state.by_capability.get(name, Counter()),)
    )
