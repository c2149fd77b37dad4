"""Prometheus metrics of a cluster, folded from its events. Begin with `ClusterMetrics`."""

from anyserve.telemetry.metrics.fold import ClusterMetrics

__all__ = ["ClusterMetrics"]
