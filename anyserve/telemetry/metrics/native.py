"""The `anyserve_*` metrics: queues, hops, delegations, outcomes, latencies, replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from anyserve.core.messages import ReplicaState
from anyserve.telemetry.metrics.fold import ClusterMetrics
from anyserve.telemetry.metrics.histograms import Histograms
from anyserve.telemetry.views import Stage

Rows = Iterable[tuple[Sequence[str], float | None]]


def native_families(metrics: ClusterMetrics) -> Iterator[Metric]:
    """Every `anyserve_*` family."""
    yield from _requests(metrics)
    yield from _ways_back(metrics)
    yield from _replicas(metrics)
    yield from _cluster(metrics)
    for each in (
        metrics.ttft, metrics.tpot, metrics.itl, metrics.e2e, metrics.queue, metrics.hops,
    ):  # fmt: skip
        yield histogram(each)


def gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """A gauge family; what is unknown is left out."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        if value is not None:
            family.add_metric(values, value)
    return family


def counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """A counter family; `_total` is added to the name."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        if value is not None:
            family.add_metric(values, value)
    return family


def histogram(series: Histograms) -> Metric:
    """A histogram family."""
    family = HistogramMetricFamily(series.name, series.help_text, labels=series.labels)
    for values, each in series:
        family.add_metric(values, buckets=each.buckets(), sum_value=each.total)
    return family


def _requests(metrics: ClusterMetrics) -> Iterator[Metric]:
    state = metrics.state
    by_capability = ("capability",)
    offered: Counter[tuple[str, ...]] = Counter()
    for name, counts in state.by_capability.items():
        offered[metrics.label(name),] += counts["offered"]
    yield counter(
        "anyserve_requests_offered", "Requests offered, by capability asked.",
        by_capability, _sorted(offered),
    )  # fmt: skip
    yield counter(
        "anyserve_requests", "Requests with an outcome; code says why it is not completed.",
        ("capability", "outcome", "code"), _sorted(metrics.outcomes),
    )  # fmt: skip
    stages: Counter[tuple[str, ...]] = Counter()
    for request in state.requests.values():
        stages[metrics.label(request.capability or request.asked), request.stage.value] += 1
    for name in {label for label, _ in stages}:
        for stage in Stage:
            if stage is not Stage.SETTLED:
                stages[name, stage.value] += 0
    yield gauge(
        "anyserve_requests_in_flight", "Requests without an outcome, by what they do now.",
        ("capability", "stage"), _sorted(stages),
    )  # fmt: skip
    queues: Counter[tuple[str, ...]] = Counter()
    for name, waiting in state.queues.items():
        queues[metrics.label(name),] += waiting
    yield gauge(
        "anyserve_queue_depth", "Requests waiting at the scheduler, as it reported last.",
        by_capability, _sorted(queues),
    )  # fmt: skip
    yield counter(
        "anyserve_prompt_tokens", "Prompt tokens of settled requests, by capability asked.",
        by_capability, _one(metrics.prompt_tokens),
    )  # fmt: skip
    yield counter(
        "anyserve_output_tokens", "Tokens that clients received, by capability asked.",
        by_capability, _one(metrics.output_tokens),
    )  # fmt: skip


def _ways_back(metrics: ClusterMetrics) -> Iterator[Metric]:
    state = metrics.state
    yield counter(
        "anyserve_delegations", "Delegations, by edge of the ladder and reason.",
        ("from_capability", "to_capability", "reason"), _sorted(state.delegations),
    )  # fmt: skip
    kinds = (("lost", "recoveries"), ("refuse", "refusals"), ("return", "returns"))
    yield counter(
        "anyserve_reentries", "Requests that came back by another way than delegation.",
        ("kind",), (((kind,), state.counts[name]) for kind, name in kinds),
    )  # fmt: skip
    yield counter(
        "anyserve_hops", "Attempts started, by capability asked and replica.",
        ("capability", "replica", "delegated"),
        (
            ((metrics.label(asked), replica, flag), count)
            for (asked, replica), (started, delegated) in sorted(state.routing.items())
            for flag, count in (("false", started - delegated), ("true", delegated))
        ),
    )  # fmt: skip


def _replicas(metrics: ClusterMetrics) -> Iterator[Metric]:
    replicas = sorted(metrics.state.replicas.items())
    known = [(name, one) for name, one in replicas if one.state != "unknown"]
    loads = [(name, one.load) for name, one in replicas if one.load is not None]
    label = ("replica",)
    yield gauge(
        "anyserve_replica_state", "1 for the state that the replica is in.", ("replica", "state"),
        (
            ((name, state.value), float(one.state == state.value))
            for name, one in known
            for state in ReplicaState
        ),
    )  # fmt: skip
    yield gauge(
        "anyserve_replica_slots", "Requests that it serves at once.", label,
        (((name,), one.concurrency) for name, one in known),
    )  # fmt: skip
    yield gauge(
        "anyserve_replica_running", "Requests in slots.", label,
        (((name,), load.running) for name, load in loads),
    )  # fmt: skip
    yield gauge(
        "anyserve_replica_waiting", "Requests in its entry queue.", label,
        (((name,), load.waiting) for name, load in loads),
    )  # fmt: skip
    yield gauge(
        "anyserve_replica_kv_cache_usage_ratio", "Used part of the KV cache, 0 to 1.", label,
        (((name,), load.kv_usage) for name, load in loads),
    )  # fmt: skip
    yield counter(
        "anyserve_replica_attempts", "Attempts that ended there.", ("replica", "status"),
        (
            ((name, status), one.counts[status])
            for name, one in known
            for status in ("completed", "failed", "lost")
        ),
    )  # fmt: skip
    yield counter(
        "anyserve_worker_exits", "Workers that exited, hung or were killed.", label,
        _one(metrics.worker_exits),
    )  # fmt: skip


def _cluster(metrics: ClusterMetrics) -> Iterator[Metric]:
    state = metrics.state
    yield gauge("anyserve_scheduler_epoch", "Life of the scheduler.", (), [((), state.epoch)])
    for name, text, value in (
        ("anyserve_events", "Events that these metrics are made of.", state.counts["events"]),
        ("anyserve_events_missing", "Events that never came: all counts are lower bounds by them.",
         metrics.missing),
        ("anyserve_policy_failures", "Decisions that a routing policy failed to make.",
         state.counts["policy_failures"]),
    ):  # fmt: skip
        # Missing events may turn up late, so theirs can fall: a gauge by nature.
        make = gauge if name.endswith("missing") else counter
        yield make(name, text, (), [((), value)])
    yield counter(
        "anyserve_bus_troubles", "Malformed messages, lag, lost connections.", ("kind",),
        _one(metrics.bus_troubles),
    )  # fmt: skip


def _sorted(counts: Mapping[Any, float]) -> Rows:
    return sorted(counts.items())


def _one(counts: Mapping[str, float]) -> Rows:
    return (((name,), value) for name, value in sorted(counts.items()))
