"""How long a message took in a recorded run: the `sim.network.latency` with which a simulation of
it has the network that it had.

A request comes to its engine over one message where it enters at its replica, over two by way of
the scheduler, and its first token back over one. What it waited in queues and in the engine is
known, each by the clock of the process where it waited; the rest of its time to first token was
spent on the way:

    (2 or 3) * message = first token - intended - queues - engine wait - prefill

What the origin sends late, because its processor is busy, counts as the way.
"""

from __future__ import annotations

from collections.abc import Iterable

from anyserve.core.events import (
    AttemptEnded,
    Envelope,
    RequestOffered,
    RequestOutcome,
    RequestRouted,
)
from anyserve.sim.enough import median_ns
from anyserve.workload.traffic import SCHEDULER_ENTRY


class _Way:
    """What is known of one request until its outcome."""

    __slots__ = ("attempts", "by_scheduler", "known_ns", "routed")

    def __init__(self, offered: RequestOffered) -> None:
        self.by_scheduler = offered.entry == SCHEDULER_ENTRY
        self.known_ns = offered.intended_ns
        """When it was intended, and all that it waited where a clock was."""
        self.routed = 0
        self.attempts = 0

    def hear(self, t: int, event: RequestRouted | AttemptEnded) -> None:
        """Of one of its attempts."""
        if isinstance(event, RequestRouted):
            self.routed += 1
            self.known_ns += max(0, t - event.received_ns)
        else:
            self.attempts += 1
            times = event.times
            self.known_ns += times.queue_ns + times.engine_wait_ns + times.prefill_ns

    def message_ns(self, outcome: RequestOutcome) -> float | None:
        """Of each of its messages; None: not the first replica served it."""
        straight = self.attempts == 1 and self.routed == self.by_scheduler
        if outcome.first_ns is None or not straight:
            return None
        return (outcome.first_ns - self.known_ns) / (2 + self.routed)


def message_time_ns(envelopes: Iterable[Envelope]) -> int | None:
    """The median over the requests that the first replica served; None where they are too few."""
    ways: dict[str, _Way] = {}
    found = []
    for envelope in envelopes:
        event = envelope.event
        if isinstance(event, RequestOffered):
            ways[event.id] = _Way(event)
        elif isinstance(event, RequestRouted | AttemptEnded):
            if event.id in ways:
                ways[event.id].hear(envelope.t, event)
        elif isinstance(event, RequestOutcome) and event.id in ways:
            found.append(ways.pop(event.id).message_ns(event))
    return median_ns([one for one in found if one is not None])
