"""The events of one request, sorted into the places where it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from anyserve.core.events import (
    AttemptAdmitted,
    AttemptEnded,
    AttemptFirstToken,
    AttemptHandedBack,
    AttemptStarted,
    Envelope,
    RequestDelegated,
    RequestFirstToken,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestReentered,
    RequestRejected,
    RequestRouted,
    RequestSubmitted,
)
from anyserve.core.messages import ENTRY_ATTEMPT

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class At(Generic[E]):
    """An event, and when and where it was said."""

    event: E
    t: int
    boot: str
    source: str


@dataclass(slots=True)
class Visit:
    """What a replica said of one attempt."""

    admitted: At[AttemptAdmitted] | None = None
    started: At[AttemptStarted] | None = None
    first_token: At[AttemptFirstToken] | None = None
    handed_back: At[AttemptHandedBack] | None = None
    ended: At[AttemptEnded] | None = None

    @property
    def boot(self) -> str:
        """The boot whose clock this replica's times are on."""
        said = self.started or self.handed_back or self.admitted or self.ended or self.first_token
        assert said is not None
        return said.boot

    @property
    def source(self) -> str:
        """Who said it: the replica."""
        said = self.started or self.handed_back or self.admitted or self.ended or self.first_token
        assert said is not None
        return said.source

    @property
    def received_ns(self) -> int | None:
        """When the request arrived at this replica, on the replica's clock."""
        if self.ended is not None:
            return self.ended.event.times.received_ns
        said = self.started or self.handed_back or self.admitted
        return None if said is None else said.event.received_ns


@dataclass(slots=True)
class Story:
    """All events of one request, each kind where the trace looks for it; the first copy counts."""

    offered: At[RequestOffered] | None = None
    submitted: dict[int, At[RequestSubmitted]] = field(default_factory=dict)
    queued: list[At[RequestQueued]] = field(default_factory=list)
    routed: dict[int, At[RequestRouted]] = field(default_factory=dict)
    visits: dict[int, Visit] = field(default_factory=dict)
    delegated: dict[int, At[RequestDelegated]] = field(default_factory=dict)
    reentered: dict[int, At[RequestReentered]] = field(default_factory=dict)
    rejected: At[RequestRejected] | None = None
    first_token: At[RequestFirstToken] | None = None
    outcome: At[RequestOutcome] | None = None
    last: dict[str, int] = field(default_factory=dict)
    """The latest time on each boot."""

    def visit(self, attempt: int) -> Visit:
        """What the replica of this attempt said, made on first use."""
        return self.visits.setdefault(attempt, Visit())

    def lost(self, attempt: int) -> At[RequestReentered] | None:
        """What the scheduler said of the loss of this attempt."""
        said = self.reentered.get(attempt)
        return said if said is not None and said.event.kind == "lost" else None

    def submission_of(self, attempt: int) -> int:
        """Which of the origin's submissions led to this attempt.

        Where it was sent in at a replica, no event says so: then the last one before it got there.
        """
        routed = self.routed.get(attempt)
        if routed is not None:
            return routed.event.submission
        visit = self.visits.get(attempt)
        received_ns = None if visit is None else visit.received_ns
        if visit is None or received_ns is None or attempt == ENTRY_ATTEMPT:
            return 1
        before = (
            number
            for number, one in self.submitted.items()
            if one.boot == visit.boot and one.t <= received_ns
        )
        return max(before, default=1)

    @property
    def last_attempt(self) -> int | None:
        """The attempt whose answer the origin took; None where the outcome names none."""
        return None if self.outcome is None else self.outcome.event.attempt


def read_story(envelopes: Iterable[Envelope], request_id: str) -> Story:
    """Sort the events of `request_id` out of `envelopes`; their order does not matter."""
    story = Story()
    for envelope in envelopes:
        if getattr(envelope.event, "id", None) == request_id:
            story.last[envelope.boot] = max(story.last.get(envelope.boot, 0), envelope.t)
            _place(story, envelope)
    story.queued.sort(key=lambda queued: queued.t)
    return story


def _place(story: Story, envelope: Envelope) -> None:
    if not _place_request(story, envelope):
        _place_attempt(story, envelope)


def _place_request(story: Story, envelope: Envelope) -> bool:  # noqa: C901 - one case per event
    t, boot, source = envelope.t, envelope.boot, envelope.source
    match envelope.event:
        case RequestOffered() as event:
            story.offered = story.offered or At(event, t, boot, source)
        case RequestSubmitted() as event:
            if not event.resent:
                story.submitted.setdefault(event.submission, At(event, t, boot, source))
        case RequestQueued() as event:
            story.queued.append(At(event, t, boot, source))
        case RequestRouted() as event:
            story.routed.setdefault(event.attempt, At(event, t, boot, source))
        case RequestDelegated() as event:
            story.delegated.setdefault(event.attempt, At(event, t, boot, source))
        case RequestReentered() as event:
            story.reentered.setdefault(event.attempt, At(event, t, boot, source))
        case RequestRejected() as event:
            story.rejected = story.rejected or At(event, t, boot, source)
        case RequestFirstToken() as event:
            story.first_token = story.first_token or At(event, t, boot, source)
        case RequestOutcome() as event:
            story.outcome = story.outcome or At(event, t, boot, source)
        case _:
            return False
    return True


def _place_attempt(story: Story, envelope: Envelope) -> None:
    t, boot, source = envelope.t, envelope.boot, envelope.source
    match envelope.event:
        case AttemptAdmitted() as event:
            visit = story.visit(event.attempt)
            visit.admitted = visit.admitted or At(event, t, boot, source)
        case AttemptStarted() as event:
            visit = story.visit(event.attempt)
            visit.started = visit.started or At(event, t, boot, source)
        case AttemptFirstToken() as event:
            visit = story.visit(event.attempt)
            visit.first_token = visit.first_token or At(event, t, boot, source)
        case AttemptHandedBack() as event:
            visit = story.visit(event.attempt)
            visit.handed_back = visit.handed_back or At(event, t, boot, source)
        case AttemptEnded() as event:
            visit = story.visit(event.attempt)
            visit.ended = visit.ended or At(event, t, boot, source)
        case _:
            pass
