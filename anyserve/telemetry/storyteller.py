"""Consistent event logs of requests with a chosen fate: for tests, examples and demonstrations.

A `Storyteller` plays origin, scheduler and replicas at once. It says the events they would say, in
causal order, each on the clock of its own host, and knows which segments a trace must find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anyserve.core.events import (
    AnyEvent,
    AttemptAdmitted,
    AttemptEnded,
    AttemptFirstToken,
    AttemptHandedBack,
    AttemptStarted,
    Candidate,
    Envelope,
    ReplicaChanged,
    RequestDelegated,
    RequestFirstToken,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestReentered,
    RequestRouted,
    RequestSubmitted,
)
from anyserve.core.messages import ATTEMPTS_PER_EPOCH, ENTRY_ATTEMPT, Times
from anyserve.telemetry.trace_model import SegmentKind


@dataclass(frozen=True, slots=True)
class Leg:
    """One assignment: how long each part of it took, in nanoseconds, and how it ended.

    `end`: serve, delegate, refuse, return or lost. A leg without `routed` is an entry at a replica.
    `transit_ns` is the way to where the leg begins: scheduler or entry replica. `back_ns` is the
    way of an answer to the origin, and of a loss until the origin has noticed it and submits again.
    """

    replica: str
    capability: str = "decode"
    end: str = "serve"
    routed: bool = True
    transit_ns: int = 1_000_000
    scheduler_queue_ns: int = 0
    assign_ns: int = 1_000_000
    queue_ns: int = 0
    engine_wait_ns: int = 0
    prefill_ns: int = 20_000_000
    decode_ns: int = 100_000_000
    back_ns: int = 1_000_000
    reason: str = "too_long"
    upgraded: str = "decode.heavy"


@dataclass(slots=True)
class Storyteller:
    """Says events; `clocks` gives each source its `(boot, offset_ns)`, default one shared boot."""

    clocks: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    origin: str = "player"
    scheduler: str = "scheduler"
    envelopes: list[Envelope] = field(default_factory=list)
    expected: dict[str, list[tuple[SegmentKind, int]]] = field(default_factory=dict)
    """Per request: the segments its trace must have, in order."""
    _sequences: dict[str, int] = field(default_factory=dict)

    def say(self, source: str, now: int, event: AnyEvent) -> None:
        """Append `event` as `source` says it at `now`, a time on the common clock of the story."""
        boot, offset = self._clock(source)
        seq = self._sequences.get(source, 0)
        self._sequences[source] = seq + 1
        self.envelopes.append(
            Envelope(t=now + offset, source=source, incarnation=1, seq=seq, event=event, boot=boot)
        )

    def register(
        self,
        replica: str,
        offers: Mapping[str, int | None],
        *,
        now: int = 0,
        concurrency: int = 4,
    ) -> None:
        """The replica says that it is ready and what it offers."""
        changed = ReplicaChanged(
            replica=replica,
            state="ready",
            incarnation=1,
            offers=offers,
            concurrency=concurrency,
            entry_queue=8,
        )
        self.say(replica, now, changed)

    def request(
        self,
        request_id: str,
        legs: list[Leg],
        *,
        intended_ns: int = 0,
        client_delay_ns: int = 0,
        n_tokens: int = 11,
        prompt_tokens: int = 64,
        outcome: str = "completed",
    ) -> int:
        """Tell a whole request that goes through `legs`; gives the time of its outcome."""
        told = _Told(self, request_id, legs[0].capability, intended_ns)
        told.offer(legs[0], client_delay_ns, prompt_tokens, n_tokens)
        for index, leg in enumerate(legs):
            told.travel(leg, ATTEMPTS_PER_EPOCH + index, n_tokens)
        told.settle(legs[-1], outcome, n_tokens)
        self.expected[request_id] = told.segments
        return told.now

    def local(self, source: str, now: int) -> int:
        """`now` as the clock of `source` shows it."""
        return now + self._clock(source)[1]

    def _clock(self, source: str) -> tuple[str, int]:
        return self.clocks.get(source, ("boot", 0))


@dataclass(slots=True)
class _Told:
    """The one request that is being told: where it is and what time it is there."""

    teller: Storyteller
    id: str
    asked: str
    now: int
    segments: list[tuple[SegmentKind, int]] = field(default_factory=list)
    submission: int = 1
    delegations: int = 0
    first_ns: int | None = None
    last_attempt: int = 0
    on_arrival: AnyEvent | None = None
    """What the scheduler says when the request is back."""

    def say(self, source: str, event: AnyEvent) -> None:
        self.teller.say(source, self.now, event)

    def local(self, source: str) -> int:
        return self.teller.local(source, self.now)

    def spend(self, kind: SegmentKind, duration_ns: int) -> None:
        self.segments.append((kind, duration_ns))
        self.now += duration_ns

    def offer(self, leg: Leg, delay_ns: int, prompt_tokens: int, max_tokens: int) -> None:
        origin = self.teller.origin
        intended = self.local(origin)
        self.spend(SegmentKind.CLIENT_DELAY, delay_ns)
        entry = "scheduler" if leg.routed else leg.replica
        offered = RequestOffered(
            id=self.id,
            capability=self.asked,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            entry=entry,
            intended_ns=intended,
        )
        self.say(origin, offered)
        self.say(origin, RequestSubmitted(id=self.id, submission=1, entry=entry))

    def travel(self, leg: Leg, attempt: int, n_tokens: int) -> None:
        attempt = attempt if leg.routed else ENTRY_ATTEMPT
        self.last_attempt = attempt
        if leg.routed:
            self._schedule(leg, attempt)
        else:
            self.spend(SegmentKind.TRANSIT, leg.transit_ns)
        received = self.local(leg.replica)
        if not leg.routed and leg.end in {"serve", "lost"}:
            self._admit(leg, attempt, received)
        queue = SegmentKind.REPLICA_QUEUE if leg.routed else SegmentKind.ENTRY_QUEUE
        self.spend(queue, leg.queue_ns)
        if leg.end == "serve":
            self._serve(leg, attempt, received, n_tokens)
        elif leg.end == "lost":
            self._lose(leg, attempt, received)
        else:
            self._hand_back(leg, attempt, received)

    def _schedule(self, leg: Leg, attempt: int) -> None:
        scheduler = self.teller.scheduler
        self.spend(SegmentKind.TRANSIT, leg.transit_ns)
        received = self.local(scheduler)
        if self.on_arrival is not None:
            self.say(scheduler, self.on_arrival)
            self.on_arrival = None
        if leg.scheduler_queue_ns:
            queued = RequestQueued(
                id=self.id,
                capability=leg.capability,
                depth=1,
                received_ns=received,
                submission=self.submission,
            )
            self.say(scheduler, queued)
        self.spend(SegmentKind.SCHEDULER_QUEUE, leg.scheduler_queue_ns)
        routed = RequestRouted(
            id=self.id,
            attempt=attempt,
            replica=leg.replica,
            capability=leg.capability,
            policy="least-loaded",
            reason="fewest requests per slot",
            received_ns=received,
            submission=self.submission,
            eligible=1,
            candidates=[Candidate(replica=leg.replica, score=0.25, credit=3, running=1)],
            excluded={"other_capability": 1},
            delegations=self.delegations,
        )
        self.say(scheduler, routed)
        self.spend(SegmentKind.TRANSIT, leg.assign_ns)

    def _admit(self, leg: Leg, attempt: int, received_ns: int) -> None:
        admitted = AttemptAdmitted(
            id=self.id,
            attempt=attempt,
            capability=leg.capability,
            position=1 if leg.queue_ns else 0,
            received_ns=received_ns,
        )
        self.say(leg.replica, admitted)

    def _start(self, leg: Leg, attempt: int, received_ns: int) -> None:
        started = AttemptStarted(
            id=self.id,
            attempt=attempt,
            capability=leg.capability,
            received_ns=received_ns,
            entered=not leg.routed,
        )
        self.say(leg.replica, started)

    def _serve(self, leg: Leg, attempt: int, received_ns: int, n_tokens: int) -> None:
        self._start(leg, attempt, received_ns)
        self.spend(SegmentKind.ENGINE_WAIT, leg.engine_wait_ns)
        self.spend(SegmentKind.PREFILL, leg.prefill_ns)
        self.say(leg.replica, AttemptFirstToken(id=self.id, attempt=attempt))
        origin = self.teller.origin
        first = self.now + leg.back_ns
        if n_tokens:
            self.first_ns = self.teller.local(origin, first)
            said = RequestFirstToken(id=self.id, attempt=attempt)
            self.teller.say(origin, first, said)
        self.spend(SegmentKind.DECODE, leg.decode_ns)
        times = Times(
            received_ns=received_ns,
            queue_ns=leg.queue_ns,
            engine_wait_ns=leg.engine_wait_ns,
            prefill_ns=leg.prefill_ns,
            decode_ns=leg.decode_ns,
        )
        ended = AttemptEnded(
            id=self.id, attempt=attempt, status="completed", n_tokens=n_tokens, times=times
        )
        self.say(leg.replica, ended)
        self.spend(SegmentKind.DELIVERY, leg.back_ns)

    def _lose(self, leg: Leg, attempt: int, received_ns: int) -> None:
        """It ran for the length of its prefill and decode, then its replica was gone."""
        self._start(leg, attempt, received_ns)
        self.spend(SegmentKind.LOST_WORK, leg.prefill_ns + leg.decode_ns + leg.back_ns)
        self.on_arrival = RequestReentered(
            id=self.id, attempt=attempt, replica="", kind="lost", count=self.submission
        )
        self.submission += 1
        again = RequestSubmitted(id=self.id, submission=self.submission, entry="scheduler")
        self.say(self.teller.origin, again)

    def _hand_back(self, leg: Leg, attempt: int, received_ns: int) -> None:
        back = AttemptHandedBack(
            id=self.id, attempt=attempt, kind=leg.end, reason=leg.reason, received_ns=received_ns
        )
        self.say(leg.replica, back)
        if leg.end == "delegate":
            self.delegations += 1
            self.on_arrival = RequestDelegated(
                id=self.id,
                attempt=attempt,
                replica=leg.replica,
                reason=leg.reason,
                from_capability=leg.capability,
                to_capability=leg.upgraded,
                count=self.delegations,
            )
        else:
            self.on_arrival = RequestReentered(
                id=self.id, attempt=attempt, replica=leg.replica, kind=leg.end, count=1
            )

    def settle(self, last: Leg, outcome: str, n_tokens: int) -> None:
        gap = last.decode_ns // max(1, n_tokens - 1)
        settled = RequestOutcome(
            id=self.id,
            outcome=outcome,
            end_ns=self.local(self.teller.origin),
            first_ns=self.first_ns,
            n_tokens=n_tokens,
            itl_ns={gap: n_tokens - 1} if n_tokens > 1 else {},
            finish="length",
            served_by=last.replica,
            attempt=self.last_attempt,
            submissions=self.submission,
        )
        self.say(self.teller.origin, settled)
