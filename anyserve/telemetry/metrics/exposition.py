"""Metrics as text, in Prometheus' format 0.0.4.

OpenMetrics is not offered: prometheus-client 0.26 writes names with a colon in two ways there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from prometheus_client.core import CollectorRegistry, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from anyserve.telemetry.metrics.fold import ClusterMetrics
from anyserve.telemetry.metrics.native import native_families
from anyserve.telemetry.metrics.standard import standard_families
from anyserve.version import __version__

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


def render(metrics: ClusterMetrics, extra: Iterable[Metric] = ()) -> bytes:
    """The body of an answer to a scrape, as `CONTENT_TYPE`.

    `extra`: families of the process that answers.
    """
    return write_families(chain(_build(), _cluster(metrics), extra))


def write_families(families: Iterable[Metric]) -> bytes:
    """Families as `CONTENT_TYPE`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


def _build() -> Iterator[Metric]:
    yield InfoMetricFamily("anyserve_build", "Who says this.", {"version": __version__})


def _cluster(metrics: ClusterMetrics) -> Iterator[Metric]:
    yield from native_families(metrics)
    yield from standard_families(metrics)


class _Families:
    """A collector of what is there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._families
