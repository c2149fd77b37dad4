"""What one ingress says of itself at `/metrics`, beside what it has heard of its cluster."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from anyserve.runtime.ingress.front import Front, FrontState


def ingress_families(front: Front, dropped: int | None = None) -> Iterator[Metric]:
    """Families of this process. `dropped`: payloads of events that it was too busy to read."""
    figures = front.figures
    yield GaugeMetricFamily(
        "anyserve_ingress_ready", "1 while this ingress takes requests.",
        float(front.state is FrontState.READY),
    )  # fmt: skip
    yield GaugeMetricFamily(
        "anyserve_ingress_open_requests", "Requests of this ingress without an outcome.",
        front.open_requests,
    )  # fmt: skip
    yield CounterMetricFamily(
        "anyserve_ingress_offered", "Requests that this ingress passed on to the cluster.",
        figures.offered,
    )  # fmt: skip
    refused = CounterMetricFamily(
        "anyserve_ingress_refused", "Requests turned away at the door, by code.", labels=("code",)
    )
    for code, count in sorted(figures.refused.items()):
        refused.add_metric((code,), count)
    yield refused
    ended = CounterMetricFamily(
        "anyserve_ingress_ended", "Requests of this ingress that ended, by code.", labels=("code",)
    )
    for code, count in sorted(figures.ended.items()):
        ended.add_metric((code,), count)
    yield ended
    if dropped is not None:
        yield CounterMetricFamily(
            "anyserve_metrics_dropped_payloads",
            "Payloads of events that this ingress was too busy to read.", dropped,
        )  # fmt: skip
