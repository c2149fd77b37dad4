"""Clusters that a single test brings up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from live import LiveCluster

from anyserve.core.spec import ClusterSpec


class Make(Protocol):
    """A cluster that is not launched yet; whatever becomes of the test, nothing of it stays."""

    def __call__(self, spec: ClusterSpec) -> LiveCluster: ...


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[LiveCluster] = []

    def _make(spec: ClusterSpec) -> LiveCluster:
        made.append(LiveCluster(spec))
        return made[-1]

    yield _make
    for cluster in made:
        await cluster.abandon()
