"""What a request's trace is made of: segments that add up, and the decisions on the way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from anyserve.core.events import Candidate

TRACE_SCHEMA = "anyserve.trace/1"


class SegmentKind(Enum):
    """What a request did for a while; the value is the name people read."""

    CLIENT_DELAY = "client delay"
    TRANSIT = "transit"
    SCHEDULER_QUEUE = "scheduler queue"
    ENTRY_QUEUE = "entry queue"
    REPLICA_QUEUE = "replica queue"
    ENGINE_WAIT = "engine wait"
    PREFILL = "prefill"
    DECODE = "decode"
    DELIVERY = "delivery"
    LOST_WORK = "lost work"
    RECOVERY = "recovery"


WAITING = frozenset(
    {
        SegmentKind.CLIENT_DELAY,
        SegmentKind.SCHEDULER_QUEUE,
        SegmentKind.ENTRY_QUEUE,
        SegmentKind.REPLICA_QUEUE,
        SegmentKind.ENGINE_WAIT,
    }
)
HOPPING = frozenset({SegmentKind.TRANSIT, SegmentKind.DELIVERY})
RECOVERING = frozenset({SegmentKind.LOST_WORK, SegmentKind.RECOVERY})


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a request's time.

    `start_ns` counts from the intended send time. `estimated`: it spans two clocks that do not
    compare, so its length is a share of what the others left over.
    """

    kind: SegmentKind
    where: str
    start_ns: int
    duration_ns: int
    attempt: int | None = None
    note: str = ""
    estimated: bool = False

    @property
    def name(self) -> str:
        """The kind, as people read it."""
        return self.kind.value

    @property
    def end_ns(self) -> int:
        """Where the next segment starts."""
        return self.start_ns + self.duration_ns


@dataclass(frozen=True, slots=True)
class Decision:
    """Why the scheduler bound the request to this replica; `at_ns` from the intended send time."""

    at_ns: int
    attempt: int
    replica: str
    capability: str
    policy: str
    reason: str
    eligible: int
    candidates: tuple[Candidate, ...]
    excluded: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Comeback:
    """A way back to the scheduler: delegate, refuse, return or lost, and its reason."""

    kind: str
    attempt: int
    replica: str
    reason: str
    detail: str = ""
    from_capability: str = ""
    to_capability: str = ""


@dataclass(frozen=True, slots=True)
class Called:
    """A request that the handler of this one asked for; `at_ns` from the intended send time."""

    id: str
    capability: str
    at_ns: int
    duration_ns: int | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One request from the time it was meant to be sent to its outcome (or to now).

    The segments are each at least 0 and their sum is `total_ns`. `clock_skew`: recorded times
    contradicted each other by `skew_ns` at most and were clamped.
    """

    id: str
    asked: str
    origin: str
    entry: str
    prompt_tokens: int
    max_tokens: int
    n_tokens: int
    outcome: str | None
    code: str | None
    message: str
    intended_ns: int
    total_ns: int
    first_token_ns: int | None
    served_by: str | None
    segments: tuple[Segment, ...]
    decisions: tuple[Decision, ...]
    comebacks: tuple[Comeback, ...]
    delegations: int
    recoveries: int
    clock_skew: bool = False
    skew_ns: int = 0
    parent: str = ""
    """The request whose handler asked for this one."""
    calls: tuple[Called, ...] = ()
    """As far as the events hold them, in order of time."""

    @property
    def hops(self) -> int:
        """One assignment and one more for each delegation; recoveries are counted apart."""
        return 1 + self.delegations

    def time_in(self, kinds: frozenset[SegmentKind], *, until_ns: int | None = None) -> int:
        """Nanoseconds spent in segments of these kinds, up to `until_ns` from the start."""
        limit = self.total_ns if until_ns is None else until_ns
        return sum(
            max(0, min(segment.end_ns, limit) - segment.start_ns)
            for segment in self.segments
            if segment.kind in kinds
        )


def to_json(trace: Trace) -> dict[str, Any]:
    """The trace as plain data for JSON, under the schema name `anyserve.trace/1`."""
    data: dict[str, Any] = msgspec.to_builtins(trace)
    for plain, segment in zip(data["segments"], trace.segments, strict=True):
        plain["name"] = segment.name
        del plain["kind"]
    for plain, decision in zip(data["decisions"], trace.decisions, strict=True):
        plain["excluded"] = dict(decision.excluded)
    return {"schema": TRACE_SCHEMA, **data, "hops": trace.hops}
