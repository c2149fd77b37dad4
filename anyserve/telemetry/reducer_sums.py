"""Folds what a thinned stream tells as sums into the reducer's own counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyserve.core.events import StreamThinned

if TYPE_CHECKING:
    from anyserve.telemetry.reducer import Reducer


def fold_thinned(state: Reducer, at_ns: int, event: StreamThinned) -> None:
    """Totals stay exact; percentiles, traces and lists are of the requests that are told."""
    state.one_in, state.untold = event.one_in, event.open
    for source, incarnation, next_seq in event.heard:
        state.gaps.forgive(source, incarnation, next_seq)
    state.unheard = event.missing
    sums = event.sums
    state.counts.update(sums.counts)
    state.by_code.update(sums.codes)
    for name, counts in sums.capabilities.items():
        state.capability(name).update(counts)
        state.lately.offer(at_ns, name, counts.get("offered", 0))
        state.lately.fail(at_ns, name, counts.get("failed", 0) + counts.get("rejected", 0))
    for name, counts in sums.replicas.items():
        state.replica(name).counts.update(counts)
    for asked, replica, started, delegated in sums.cells:
        cell = state.routing.setdefault((asked, replica), [0, 0])
        cell[0] += started
        cell[1] += delegated
        state.lately.start(at_ns, asked, replica, started)
        state.lately.delegate(at_ns, asked, replica, delegated)
    for from_capability, to_capability, reason, count in sums.edges:
        state.delegations[from_capability, to_capability, reason] += count
    _fold_time(state, at_ns, event)


def _fold_time(state: Reducer, at_ns: int, event: StreamThinned) -> None:
    counts = event.sums.counts
    offered, completed = counts.get("offered", 0), counts.get("completed", 0)
    second = state.second(at_ns)
    second[0] += offered
    second[1] += completed
    second[2] += counts.get("output_tokens", 0)
    state.series.offer(at_ns, offered)
    state.series.complete(at_ns, completed)
