"""What every export starts from: each request of a log with its trace, and the wall clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from anyserve.core.events import Envelope, RequestOffered, RequestOutcome
from anyserve.telemetry.trace import Trace, build_trace
from anyserve.telemetry.trace_model import SegmentKind

_WALL_NS_PER_INCARNATION = 1_000_000


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One request: what was asked, how it ended (None: it is not known), where its time went.

    `boot` is the host life whose monotonic clock the trace's `intended_ns` is on.
    """

    offered: RequestOffered
    outcome: RequestOutcome | None
    trace: Trace
    boot: str

    @property
    def capability(self) -> str:
        """The capability that it was served as, or had reached when it ended."""
        decisions = self.trace.decisions
        return decisions[-1].capability if decisions else self.trace.asked

    def waited_ns(self) -> int:
        """Time in the queues of scheduler and replicas."""
        return self.time_in(
            SegmentKind.SCHEDULER_QUEUE, SegmentKind.ENTRY_QUEUE, SegmentKind.REPLICA_QUEUE
        )

    def time_in(self, *kinds: SegmentKind) -> int:
        """Nanoseconds in segments of these kinds."""
        return self.trace.time_in(frozenset(kinds))


def traced_requests(envelopes: Iterable[Envelope]) -> Iterator[TracedRequest]:
    """Every offered request of a log, in order of the time it was meant to be sent.

    Clocks of different boots do not compare; boots stand in the order they were first heard of.
    """
    grouped: dict[str, list[Envelope]] = {}
    offers: dict[str, Envelope] = {}
    boots: dict[str, int] = {}
    for envelope in envelopes:
        boots.setdefault(envelope.boot, len(boots))
        request_id = getattr(envelope.event, "id", None)
        if request_id is None:
            continue
        grouped.setdefault(request_id, []).append(envelope)
        if isinstance(envelope.event, RequestOffered):
            offers.setdefault(request_id, envelope)
    for request_id in sorted(offers, key=lambda one: _order(offers[one], boots)):
        yield traced_request(offers[request_id], grouped.pop(request_id))


def _order(offer: Envelope, boots: dict[str, int]) -> tuple[int, int]:
    assert isinstance(offer.event, RequestOffered)
    return boots[offer.boot], offer.event.intended_ns


def traced_request(offer: Envelope, envelopes: list[Envelope]) -> TracedRequest:
    """One request, from its `request.offered` and all that was said of it."""
    offered = offer.event
    assert isinstance(offered, RequestOffered)
    outcomes = (one.event for one in envelopes if isinstance(one.event, RequestOutcome))
    return TracedRequest(
        offered, next(outcomes, None), build_trace(envelopes, offered.id), offer.boot
    )


class WallClock:
    """From the monotonic clocks of a log to the time of day, as well as the log tells.

    An incarnation is the wall clock at a process start, which is a little before its first event.
    Over all processes of a boot the largest difference is the nearest: the error is the quickest
    start, some tenths of a second. Durations are not touched by it.
    """

    def __init__(self, envelopes: Iterable[Envelope] = ()) -> None:
        self._offsets: dict[str, int] = {}
        for envelope in envelopes:
            self.add(envelope)

    def add(self, envelope: Envelope) -> None:
        """Learn from one more event."""
        offset = envelope.incarnation * _WALL_NS_PER_INCARNATION - envelope.t
        known = self._offsets.get(envelope.boot)
        if known is None or offset > known:
            self._offsets[envelope.boot] = offset

    def at_ns(self, boot: str, t: int) -> int:
        """Nanoseconds since 1970 of `t` on the clock of `boot`; never negative."""
        return max(0, t + self._offsets.get(boot, 0))
