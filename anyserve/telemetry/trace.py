"""One request's trace: where its time went, and why it went there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from heapq import nsmallest

from anyserve.core.events import Envelope, RequestOffered, RequestOutcome
from anyserve.errors import UsageError
from anyserve.telemetry.trace_model import (
    Called,
    Comeback,
    Decision,
    Segment,
    SegmentKind,
    Trace,
    to_json,
)
from anyserve.telemetry.trace_path import Path, build_path
from anyserve.telemetry.trace_render import render_trace
from anyserve.telemetry.trace_story import Story, read_story
from anyserve.telemetry.trace_time import Lengths, measure

__all__ = [
    "Called",
    "Comeback",
    "Decision",
    "Segment",
    "SegmentKind",
    "Trace",
    "build_trace",
    "find_request",
    "notable_requests",
    "render_trace",
    "to_json",
]


def build_trace(
    envelopes: Iterable[Envelope], request_id: str | None = None, *, now_ns: int | None = None
) -> Trace:
    """The trace of `request_id`, or of the one request that `envelopes` are about.

    A request without an outcome is traced up to `now_ns` on its origin's clock, or else up to the
    last thing known of it on that clock.

    Raises:
        UsageError: `envelopes` do not hold the request's `request.offered`.
    """
    known = list(envelopes)
    story = read_story(known, _only_id(known) if request_id is None else request_id)
    if story.offered is None:
        raise _not_found(request_id or "")
    path = build_path(story)
    start = path.marks[0].t
    lengths = measure(path.marks, _end_ns(story, path, now_ns))
    trace = _assemble(story, path, start, lengths)
    return replace(trace, calls=_calls(known, trace.id, start, story.offered.boot))


def find_request(envelopes: Iterable[Envelope], text: str) -> str:
    """The full id of the request that `text` names: its id, or an ending of it that is unique.

    Raises:
        UsageError: no request has it, or several do.
    """
    offered = [one.event for one in envelopes if isinstance(one.event, RequestOffered)]
    if any(one.id == text for one in offered):
        return text
    ending = [one for one in offered if one.id.endswith(f"/{text}")]
    # A number alone means the traffic's request, not a call of a handler or something sent by hand.
    matches = [one.id for one in ending if one.stream] or [one.id for one in ending]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise _not_found(text)
    raise UsageError(
        f"{len(matches)} requests end in '{text}'",
        code="ambiguous_request",
        hint=f"name one of them in full: {', '.join(matches[:3])}",
    )


def _only_id(envelopes: list[Envelope]) -> str:
    for envelope in envelopes:
        if isinstance(envelope.event, RequestOffered):
            return envelope.event.id
    raise _not_found("")


def _not_found(request_id: str) -> UsageError:
    return UsageError(
        f"no request '{request_id}' in this log" if request_id else "no request in this log",
        code="unknown_request",
        hint="ids are origin/incarnation/number, as the report and the events show them",
    )


def _end_ns(story: Story, path: Path, now_ns: int | None) -> int:
    if story.outcome is not None:
        return story.outcome.event.end_ns
    boot = path.marks[0].boot
    latest = max([story.last.get(boot, 0), *(mark.t for mark in path.marks if mark.boot == boot)])
    return latest if now_ns is None else max(now_ns, latest)


def _assemble(story: Story, path: Path, start_ns: int, lengths: Lengths) -> Trace:
    assert story.offered is not None
    offered, outcome = story.offered.event, story.outcome
    segments = _segments(path, lengths)
    return Trace(
        id=offered.id,
        asked=offered.capability,
        origin=story.offered.source,
        entry=offered.entry,
        prompt_tokens=offered.prompt_tokens,
        max_tokens=offered.max_tokens,
        n_tokens=0 if outcome is None else outcome.event.n_tokens,
        outcome=None if outcome is None else outcome.event.outcome,
        code=None if outcome is None else outcome.event.code,
        message="" if outcome is None else outcome.event.message,
        intended_ns=start_ns,
        total_ns=sum(lengths.durations_ns),
        first_token_ns=_first_token_ns(story, start_ns),
        served_by=None if outcome is None else outcome.event.served_by,
        segments=segments,
        decisions=_decisions(story, path, segments),
        comebacks=_comebacks(story),
        delegations=len(story.delegated),
        recoveries=sum(one.event.kind == "lost" for one in story.reentered.values()),
        clock_skew=lengths.skew_ns > 0,
        skew_ns=lengths.skew_ns,
        parent=offered.parent,
    )


def _calls(envelopes: list[Envelope], parent: str, start_ns: int, boot: str) -> tuple[Called, ...]:
    """What the request's handler asked for. Of another host only that it was asked is known."""
    begun: dict[str, tuple[RequestOffered, Envelope]] = {}
    ended: dict[str, RequestOutcome] = {}
    for one in envelopes:
        if isinstance(one.event, RequestOffered) and one.event.parent == parent:
            begun.setdefault(one.event.id, (one.event, one))
        elif isinstance(one.event, RequestOutcome):
            ended.setdefault(one.event.id, one.event)
    calls = []
    for request_id, (offered, said) in begun.items():
        outcome = ended.get(request_id)
        took = None if outcome is None else outcome.end_ns - offered.intended_ns
        at_ns = offered.intended_ns - start_ns if said.boot == boot else 0
        called = Called(
            request_id,
            offered.capability,
            max(0, at_ns),
            took,
            None if outcome is None else outcome.outcome,
        )
        calls.append(called)
    return tuple(sorted(calls, key=lambda one: one.at_ns))


def _segments(path: Path, lengths: Lengths) -> tuple[Segment, ...]:
    at = 0
    segments = []
    for mark, duration, estimated in zip(
        path.marks, lengths.durations_ns, lengths.estimated, strict=True
    ):
        segments.append(
            Segment(mark.kind, mark.where, at, duration, mark.attempt, mark.note, estimated)
        )
        at += duration
    return tuple(segments)


def _first_token_ns(story: Story, start_ns: int) -> int | None:
    if story.outcome is not None and story.outcome.event.first_ns is not None:
        return story.outcome.event.first_ns - start_ns
    return None if story.first_token is None else story.first_token.t - start_ns


def _decisions(story: Story, path: Path, segments: tuple[Segment, ...]) -> tuple[Decision, ...]:
    return tuple(
        Decision(
            at_ns=segments[index].start_ns,
            attempt=attempt,
            replica=routed.replica,
            capability=routed.capability,
            policy=routed.policy,
            reason=routed.reason,
            eligible=routed.eligible,
            candidates=tuple(routed.candidates),
            excluded=tuple(sorted(routed.excluded.items())),
        )
        for attempt, index in path.decided_at.items()
        for routed in (story.routed[attempt].event,)
    )


def _comebacks(story: Story) -> tuple[Comeback, ...]:
    found: dict[int, Comeback] = {}
    for attempt, visit in story.visits.items():
        if visit.handed_back is not None:
            back = visit.handed_back.event
            found[attempt] = Comeback(back.kind, attempt, visit.source, back.reason, back.detail)
    for attempt, reentered in story.reentered.items():
        event = reentered.event
        routed = story.routed.get(attempt)
        replica = event.replica or ("a replica" if routed is None else routed.event.replica)
        found.setdefault(attempt, Comeback(event.kind, attempt, replica, "", event.detail))
    for attempt, delegated in story.delegated.items():
        said = delegated.event
        found[attempt] = Comeback(
            "delegate",
            attempt,
            said.replica,
            said.reason,
            said.detail,
            said.from_capability,
            said.to_capability,
        )
    return tuple(found[attempt] for attempt in sorted(found))


def notable_requests(envelopes: Iterable[Envelope], *, count: int = 5) -> list[Trace]:
    """Traces of the requests worth a look: first those not completed, then the slowest."""
    intended: dict[str, int] = {}
    outcomes: dict[str, RequestOutcome] = {}
    known = list(envelopes)
    for envelope in known:
        match envelope.event:
            case RequestOffered() as offered:
                intended[offered.id] = offered.intended_ns
            case RequestOutcome() as outcome:
                outcomes.setdefault(outcome.id, outcome)
            case _:
                pass
    worst = nsmallest(count, intended, key=lambda one: _rank(intended[one], outcomes.get(one)))
    events: dict[str, list[Envelope]] = {request_id: [] for request_id in worst}
    for envelope in known:
        kept = events.get(getattr(envelope.event, "id", ""))
        if kept is not None:
            kept.append(envelope)
    return [build_trace(events[request_id], request_id) for request_id in worst]


def _rank(intended_ns: int, outcome: RequestOutcome | None) -> tuple[int, int]:
    """Lower is worse: undecided, then not completed, then completed; long before short."""
    if outcome is None:
        return (0, intended_ns)
    return (1 + (outcome.outcome == "completed"), intended_ns - outcome.end_ns)
