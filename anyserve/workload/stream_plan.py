"""What is known of a stream before its requests are drawn."""

from __future__ import annotations

import msgspec

from anyserve.workload.facts import Task
from anyserve.workload.schema import Stream


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of the scenario. `entries`: one is taken at random for each request."""

    name: str
    stream: Stream
    task: Task
    entries: tuple[str, ...]
