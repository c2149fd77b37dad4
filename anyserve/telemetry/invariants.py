"""The architecture's invariants, asserted over a recorded log (live or simulated).

A log shows what was said, so this checks what can be seen in it: the bound on delegations, one
outcome per request, the right place, monotone upgrades, whole answers, bounds at each replica, and
that a request's time adds up. It refuses a log with gaps: what is missing could be the violation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from anyserve.core.events import (
    AttemptEnded,
    AttemptStarted,
    Envelope,
    ReplicaChanged,
    ReplicaLoad,
    RequestOffered,
    RequestOutcome,
)
from anyserve.core.messages import ENTRY_ATTEMPT
from anyserve.errors import AnyServeError
from anyserve.telemetry.gaps import GapCounter
from anyserve.telemetry.replica_names import ReplicaNames
from anyserve.telemetry.trace import build_trace
from anyserve.telemetry.trace_story import Story, read_story

OUTCOMES = frozenset({"completed", "failed", "rejected", "cancelled", "expired"})


class IncompleteLogError(AnyServeError):
    """A log with missing events proves nothing."""

    exit_code = 1


class Invariant(Enum):
    """The invariants of the architecture: number and name. A log does not show 4, 8 and 9; the
    simulator looks at them as it runs, and by running again."""

    DELEGATION_BOUND = (1, "delegation bound")
    ONE_OUTCOME = (2, "one outcome")
    RIGHT_PLACE = (3, "right place")
    NO_SHORTCUT = (4, "no shortcut")
    MONOTONE_UPGRADE = (5, "monotone upgrade")
    WHOLE_STREAM = (6, "whole stream")
    BOUNDS_HOLD = (7, "bounds hold")
    WORK_CONSERVATION = (8, "work conservation")
    DETERMINISM = (9, "determinism")
    TIME_ADDS_UP = (10, "time adds up")

    @property
    def number(self) -> int:
        """Its number in the architecture."""
        return self.value[0]

    @property
    def title(self) -> str:
        """Its name in the architecture."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant broken, by which request (or replica), and how."""

    invariant: Invariant
    subject: str
    text: str

    def __str__(self) -> str:
        return f"invariant {self.invariant.number} ({self.invariant.title}), {self.subject}: " + (
            self.text
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the run was held to. `ladder`: capability -> next stronger one."""

    delegation_limit: int = 1
    ladder: Mapping[str, str] = field(default_factory=dict)
    queue_limits: Mapping[str, int] = field(default_factory=dict)
    """Scheduler queue limit per capability, for requests that enter."""
    clock_tolerance_ns: int = 0
    """Contradictions up to this are how a live process reads its clock, not a fault."""


def check_invariants(
    envelopes: Iterable[Envelope], rules: Rules, *, problems: Iterable[str] = ()
) -> list[Violation]:
    """Every violation that the log shows. `problems`: why it is not whole, as its reader saw.

    Raises:
        IncompleteLogError: events are missing or the log could not be read to its end.
    """
    gaps = GapCounter()
    kept = [one for one in envelopes if gaps.add(one.source, one.incarnation, one.seq)]
    reasons = list(problems)
    if gaps.missing and not reasons:
        reasons = [f"{gaps.missing} events missing"]
    if reasons:
        raise IncompleteLogError(
            f"incomplete: {', '.join(reasons)}; invariants cannot be checked",
            code="incomplete_log",
            hint="look at the logs of the run for what stopped its recorder",
        )
    return [*_replica_violations(kept), *_request_violations(kept, rules)]


def _request_violations(envelopes: list[Envelope], rules: Rules) -> Iterator[Violation]:
    by_request: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        request_id = getattr(envelope.event, "id", None)
        if request_id is not None:
            by_request.setdefault(request_id, []).append(envelope)
    for request_id, events in by_request.items():
        story = read_story(events, request_id)
        yield from _outcome_violations(request_id, events)
        yield from _delegation_violations(request_id, story, rules)
        if story.offered is not None:
            yield from _upgrade_violations(request_id, story, rules)
            yield from _stream_violations(request_id, story)
            yield from _queue_violations(request_id, story, rules.queue_limits)
            yield from _time_violations(request_id, story, events, rules)


def _outcome_violations(request_id: str, events: list[Envelope]) -> Iterator[Violation]:
    offers = [one for one in events if isinstance(one.event, RequestOffered)]
    outcomes = [one for one in events if isinstance(one.event, RequestOutcome)]
    found = []
    if not offers:
        found.append("was never offered")
    elif len(outcomes) != 1:
        found.append(f"has {len(outcomes)} outcomes")
    found += [
        f"has the outcome '{one.event.outcome}', which is none of the five"
        for one in outcomes
        if isinstance(one.event, RequestOutcome) and one.event.outcome not in OUTCOMES
    ]
    owners = {one.source for one in offers}
    found += [
        f"was offered by {', '.join(sorted(owners))} but decided by {one.source}"
        for one in outcomes
        if owners and one.source not in owners
    ]
    for text in found:
        yield Violation(Invariant.ONE_OUTCOME, request_id, text)


def _delegation_violations(request_id: str, story: Story, rules: Rules) -> Iterator[Violation]:
    limit = rules.delegation_limit
    counts = [
        len(story.delegated),
        *(one.event.count for one in story.delegated.values()),
        *(one.event.delegations for one in story.routed.values()),
    ]
    if max(counts) > limit:
        text = f"{max(counts)} delegations, the limit is {limit}"
        yield Violation(Invariant.DELEGATION_BOUND, request_id, text)


def _upgrade_violations(request_id: str, story: Story, rules: Rules) -> Iterator[Violation]:
    assert story.offered is not None
    asked = story.offered.event.capability
    steps = [(attempt, 0, one.event.capability) for attempt, one in story.routed.items()]
    steps += [
        (attempt, 1, visit.started.event.capability)
        for attempt, visit in story.visits.items()
        if visit.started is not None
    ]
    current = asked
    for attempt, _, reached in sorted(steps):
        if reached not in _at_or_above(current, rules.ladder):
            text = f"attempt {attempt} has {reached}, which is not {current} or above it"
            yield Violation(Invariant.MONOTONE_UPGRADE, request_id, text)
        elif attempt == ENTRY_ATTEMPT and reached != asked:
            text = f"entered as {reached} though {asked} was asked"
            yield Violation(Invariant.MONOTONE_UPGRADE, request_id, text)
        current = reached


def _at_or_above(capability: str, ladder: Mapping[str, str]) -> list[str]:
    rungs = [capability]
    while rungs[-1] in ladder and ladder[rungs[-1]] not in rungs:
        rungs.append(ladder[rungs[-1]])
    return rungs


def _stream_violations(request_id: str, story: Story) -> Iterator[Violation]:
    """A completed answer has as many tokens as its last attempt made and resumed from."""
    outcome = story.outcome
    if outcome is None or outcome.event.outcome != "completed" or outcome.event.attempt is None:
        return
    visit = story.visits.get(outcome.event.attempt)
    if visit is None or visit.started is None or visit.ended is None:
        text = f"completed by attempt {outcome.event.attempt}, which never ran to an end"
        yield Violation(Invariant.WHOLE_STREAM, request_id, text)
        return
    made = visit.started.event.resumed + visit.ended.event.n_tokens
    if made != outcome.event.n_tokens:
        text = f"the client got {outcome.event.n_tokens} tokens, its attempt accounts for {made}"
        yield Violation(Invariant.WHOLE_STREAM, request_id, text)


def _queue_violations(
    request_id: str, story: Story, limits: Mapping[str, int]
) -> Iterator[Violation]:
    back_again = [one.t for one in story.delegated.values()]
    back_again += [one.t for one in story.reentered.values()]
    for queued in story.queued:
        limit = limits.get(queued.event.capability)
        new = queued.event.submission == 1 and all(queued.t < t for t in back_again)
        if limit is not None and new and queued.event.depth > limit:
            text = f"queued at position {queued.event.depth} of {queued.event.capability}, "
            yield Violation(Invariant.BOUNDS_HOLD, request_id, text + f"the limit is {limit}")


def _time_violations(
    request_id: str, story: Story, events: list[Envelope], rules: Rules
) -> Iterator[Violation]:
    for attempt, visit in story.visits.items():
        if visit.ended is not None:
            times = visit.ended.event.times
            parts = (times.queue_ns, times.engine_wait_ns, times.prefill_ns, times.decode_ns)
            if min(parts) < 0:
                text = f"attempt {attempt} reports a negative duration: {parts} ns"
                yield Violation(Invariant.TIME_ADDS_UP, request_id, text)
    trace = build_trace(events, request_id)
    if trace.skew_ns > rules.clock_tolerance_ns:
        text = f"times contradict each other by {trace.skew_ns} ns"
        yield Violation(Invariant.TIME_ADDS_UP, request_id, text)


@dataclass(slots=True)
class _Host:
    """One life of one replica as the log shows it."""

    registered: bool = False
    offers: Mapping[str, int | None] = field(default_factory=dict)
    concurrency: int = 0
    entry_queue: int | None = None
    running: set[tuple[str, int]] = field(default_factory=set)
    begun: set[tuple[str, int]] = field(default_factory=set)


def _replica_violations(envelopes: list[Envelope]) -> Iterator[Violation]:
    sizes = {
        one.event.id: one.event.prompt_tokens + one.event.max_tokens
        for one in envelopes
        if isinstance(one.event, RequestOffered)
    }
    names = ReplicaNames()
    hosts: dict[tuple[str, int], _Host] = {}
    started_by: dict[tuple[str, int], str] = {}
    for envelope in sorted(envelopes, key=lambda one: (one.source, one.incarnation, one.seq)):
        names.learn(envelope.source, envelope.event)
        replica = names.of(envelope.source)
        host = hosts.setdefault((envelope.source, envelope.incarnation), _Host())
        match envelope.event:
            case ReplicaChanged() as event if event.replica == replica:
                _register(host, event)
            case ReplicaLoad() as event:
                yield from _load_violations(replica, host, event)
            case AttemptStarted() as event:
                first = started_by.setdefault((event.id, event.attempt), replica)
                if (event.id, event.attempt) in host.begun or first != replica:
                    text = f"attempt {event.attempt} started twice, at {first} and {replica}"
                    yield Violation(Invariant.BOUNDS_HOLD, event.id, text)
                yield from _start_violations(replica, host, event, sizes.get(event.id))
            case AttemptEnded() as event:
                host.running.discard((event.id, event.attempt))
            case _:
                pass


def _register(host: _Host, event: ReplicaChanged) -> None:
    host.registered = True
    host.offers = event.offers
    host.concurrency = event.concurrency
    host.entry_queue = event.entry_queue


def _load_violations(replica: str, host: _Host, event: ReplicaLoad) -> Iterator[Violation]:
    load = event.load
    if host.concurrency and load.running > host.concurrency:
        text = f"reports {load.running} running with concurrency {host.concurrency}"
        yield Violation(Invariant.BOUNDS_HOLD, replica, text)
    if host.entry_queue is not None and load.waiting > host.entry_queue:
        text = f"reports {load.waiting} waiting with an entry queue of {host.entry_queue}"
        yield Violation(Invariant.BOUNDS_HOLD, replica, text)


def _start_violations(
    replica: str, host: _Host, event: AttemptStarted, size: int | None
) -> Iterator[Violation]:
    key = (event.id, event.attempt)
    host.begun.add(key)
    host.running.add(key)
    if host.concurrency and len(host.running) > host.concurrency:
        text = f"runs {len(host.running)} with concurrency {host.concurrency}"
        yield Violation(Invariant.BOUNDS_HOLD, replica, text)
    if not host.registered:
        text = f"started at {replica}, which had not registered"
        yield Violation(Invariant.RIGHT_PLACE, event.id, text)
    elif event.capability not in host.offers:
        offers = ", ".join(sorted(host.offers)) or "nothing"
        text = f"started {event.capability} at {replica}, which offers {offers}"
        yield Violation(Invariant.RIGHT_PLACE, event.id, text)
    else:
        limit = host.offers[event.capability]
        if limit is not None and size is not None and size > limit:
            text = f"{size} tokens started at {replica}, whose limit is {limit}"
            yield Violation(Invariant.RIGHT_PLACE, event.id, text)
