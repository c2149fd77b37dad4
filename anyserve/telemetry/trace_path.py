"""The way of one request as a chain of marks: here, at this time, that began.

Marks stand in the order in which things must have happened, not in the order of their times. Where
the two disagree a clock was wrong, and `trace_time` says so instead of hiding it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from anyserve.core.events import (
    AttemptEnded,
    AttemptHandedBack,
    RequestRouted,
    RequestSubmitted,
)
from anyserve.core.messages import AttemptStatus
from anyserve.telemetry.trace_model import SegmentKind
from anyserve.telemetry.trace_story import At, Story, Visit

SCHEDULER_ENTRY = "scheduler"
_NS_PER_MS = 1e6
_UNDECIDED = frozenset({"cancelled", "expired", "rejected", "failed"})


@dataclass(frozen=True, slots=True)
class Mark:
    """At `t` on the clock of `boot` a segment of this kind began."""

    t: int
    boot: str
    kind: SegmentKind
    where: str
    attempt: int | None = None
    note: str = ""


@dataclass(slots=True)
class Path:
    """The marks of a request and, for each routed attempt, which mark its decision is."""

    marks: list[Mark] = field(default_factory=list)
    decided_at: dict[int, int] = field(default_factory=dict)

    def add(
        self,
        at: tuple[int, str],
        kind: SegmentKind,
        where: str,
        *,
        attempt: int | None = None,
        note: str = "",
    ) -> None:
        """Append a mark at `(time, boot)`."""
        self.marks.append(Mark(at[0], at[1], kind, where, attempt, note))

    def annotate(self, note: str) -> None:
        """Put a note on the segment that began last."""
        self.marks[-1] = replace(self.marks[-1], note=note)


def build_path(story: Story) -> Path:
    """The marks of a story that has its `offered`; the end of the request is not among them."""
    offered = story.offered
    assert offered is not None
    path = Path()
    origin, boot = offered.source, offered.boot
    path.add((offered.event.intended_ns, boot), SegmentKind.CLIENT_DELAY, origin)
    path.add((offered.t, boot), SegmentKind.TRANSIT, f"{origin} → {offered.event.entry}")
    served = story.last_attempt if _completed(story) else None
    last_submission = _last_submission(story, served)
    for submission in range(1, last_submission + 1):
        again = story.submitted.get(submission)
        if submission > 1 and again is not None:
            where = f"{again.source} → {again.event.entry}"
            note = f"submission {submission}, resumes {again.event.resumed} tokens"
            path.add((again.t, again.boot), SegmentKind.TRANSIT, where, note=note)
        again = story.submitted.get(submission + 1) if submission < last_submission else None
        _add_submission(path, story, submission, served, again)
    _cut_at_outcome(path, story)
    return path


def _completed(story: Story) -> bool:
    return story.outcome is not None and story.outcome.event.outcome not in _UNDECIDED


def _last_submission(story: Story, served: int | None) -> int:
    """Submissions after the one that gave the answer were overtaken and are not on the way."""
    if served is not None and (served in story.routed or served in story.visits):
        return story.submission_of(served)
    return max([1, *story.submitted, *(one.event.submission for one in story.routed.values())])


def _add_submission(
    path: Path,
    story: Story,
    submission: int,
    served: int | None,
    again: At[RequestSubmitted] | None,
) -> None:
    """One submission's way; `again` is the origin's next one, which says that this one was lost."""
    attempts = sorted(
        attempt
        for attempt in story.routed.keys() | story.visits.keys()
        if story.submission_of(attempt) == submission and (served is None or attempt <= served)
    )
    answered = None if served is None else story.visits.get(served)
    left_scheduler = -1
    for attempt in attempts:
        routed = story.routed.get(attempt)
        if again is not None and _began_after(routed, story.visits.get(attempt), again):
            continue  # its origin had gone on without it before it began
        if routed is not None:
            _add_scheduler(path, story, routed, left_scheduler)
            left_scheduler = routed.t
        lost = attempt != served and (
            (again is not None and attempt == attempts[-1]) or story.lost(attempt) is not None
        )
        visit = story.visits.get(attempt)
        if again is not None and _began_after(None, visit, again):
            visit = None
        if _came_after(visit, answered):
            visit = None  # it was held up on its way, and another one had been sent since
        if routed is None and visit is not None:
            left_scheduler = _add_wait_for_entry(path, story, submission, visit, left_scheduler)
        if visit is not None:
            overtaken = lost and again is not None and _ended_after(visit, again)
            _add_visit(path, story, attempt, visit, lost=lost, overtaken=overtaken)
        if lost and (visit is None or visit.handed_back is None):
            _add_loss(path, story, attempt, again)
    if served is None and again is None:
        _add_open_wait(path, story, submission, left_scheduler)


def _add_scheduler(
    path: Path, story: Story, routed: At[RequestRouted], left_scheduler: int
) -> None:
    event = routed.event
    waits = [
        queued
        for queued in story.queued
        if queued.event.submission == event.submission and left_scheduler < queued.t <= routed.t
    ]
    received = min([event.received_ns, *(queued.event.received_ns for queued in waits)])
    note = f"position {waits[0].event.depth} of {waits[0].event.capability}" if waits else ""
    path.add((received, routed.boot), SegmentKind.SCHEDULER_QUEUE, routed.source, note=note)
    path.decided_at[event.attempt] = len(path.marks)
    where = f"{routed.source} → {event.replica}"
    path.add((routed.t, routed.boot), SegmentKind.TRANSIT, where, attempt=event.attempt)


def _add_wait_for_entry(
    path: Path, story: Story, submission: int, visit: Visit, left_scheduler: int
) -> int:
    """It waited at the scheduler until it was sent in at a replica, which no event says: the wait
    ends where the replica got it. Returns when it left the scheduler, as far as is known."""
    received = visit.received_ns
    waits = [
        queued
        for queued in story.queued
        if queued.event.submission == submission
        and queued.boot == visit.boot
        and received is not None
        and left_scheduler < queued.t <= received
    ]
    if not waits:
        return left_scheduler
    first = waits[0]
    at = (min(queued.event.received_ns for queued in waits), first.boot)
    note = f"position {first.event.depth} of {first.event.capability}"
    path.add(at, SegmentKind.SCHEDULER_QUEUE, first.source, note=note)
    return waits[-1].t


def _began_after(
    routed: At[RequestRouted] | None, visit: Visit | None, again: At[RequestSubmitted]
) -> bool:
    """Whether an attempt was bound, or came to a replica, after the next submission was sent."""
    if routed is not None:
        return routed.boot == again.boot and routed.t > again.t
    received_ns = None if visit is None else visit.received_ns
    return (
        visit is not None
        and received_ns is not None
        and visit.boot == again.boot
        and received_ns > again.t
    )


def _came_after(visit: Visit | None, answered: Visit | None) -> bool:
    """Whether an attempt came to its replica after the one that gave the answer came to its own."""
    if visit is None or answered is None or visit.boot != answered.boot:
        return False
    came_ns, answered_ns = visit.received_ns, answered.received_ns
    return came_ns is not None and answered_ns is not None and came_ns > answered_ns


def _ended_after(visit: Visit, again: At[RequestSubmitted]) -> bool:
    """Whether an attempt went on, unheard, after its origin had given it up."""
    ended = visit.ended
    return ended is not None and ended.boot == again.boot and ended.t > again.t


def _add_visit(
    path: Path, story: Story, attempt: int, visit: Visit, *, lost: bool, overtaken: bool
) -> None:
    received = visit.received_ns
    if received is None:
        return
    routed = story.routed.get(attempt)
    where = visit.source if routed is None else routed.event.replica
    entered = visit.admitted is not None or routed is None
    entered = entered or (visit.started is not None and visit.started.event.entered)
    queue = SegmentKind.ENTRY_QUEUE if entered else SegmentKind.REPLICA_QUEUE
    path.add((received, visit.boot), queue, where, attempt=attempt)
    if visit.admitted is not None and visit.admitted.event.position:
        path.annotate(f"position {visit.admitted.event.position}")
    if visit.handed_back is not None:
        _add_hand_back(path, story, visit.handed_back, where)
    elif visit.ended is not None and not overtaken and (lost or _times_count(story, visit.ended)):
        _add_engine(path, story, visit, where, lost=lost)
    elif visit.started is not None:
        _add_unfinished(path, story, visit, where, lost=lost)


def _add_hand_back(path: Path, story: Story, back: At[AttemptHandedBack], where: str) -> None:
    event = back.event
    note = f"{event.kind}: {event.reason}"
    delegated = story.delegated.get(event.attempt)
    if delegated is not None:
        note += f", {delegated.event.from_capability} → {delegated.event.to_capability}"
    if event.detail:
        note += f" ({event.detail})"
    path.add(
        (back.t, back.boot),
        SegmentKind.TRANSIT,
        f"{where} → {SCHEDULER_ENTRY}",
        attempt=event.attempt,
        note=note,
    )


def _times_count(story: Story, ended: At[AttemptEnded]) -> bool:
    """Times of an attempt say where it was until the end, unless the outcome came before that: the
    client went away, or had enough (its stop string came) while the engine went on."""
    said = story.outcome
    if said is None:
        return True
    outcome = said.event
    if outcome.outcome in {"cancelled", "expired", "rejected"}:
        return False
    stopped = ended.event.status == AttemptStatus.CANCELLED.value
    later = ended.boot == said.boot and ended.t > outcome.end_ns
    went_on = later and ended.event.n_tokens > outcome.n_tokens
    return not (outcome.outcome == "completed" and (stopped or went_on))


def _add_engine(path: Path, story: Story, visit: Visit, where: str, *, lost: bool) -> None:
    assert visit.ended is not None
    event, boot = visit.ended.event, visit.boot
    times, attempt = event.times, event.attempt
    at = times.received_ns + times.queue_ns
    if visit.started is not None:
        path.add((at, boot), SegmentKind.ENGINE_WAIT, where, attempt=attempt)
        at += times.engine_wait_ns
        note = _prefill_note(story, event.cached_tokens)
        path.add((at, boot), SegmentKind.PREFILL, where, attempt=attempt, note=note)
        at += times.prefill_ns
        note = _decode_note(event.n_tokens, times.decode_ns)
        path.add((at, boot), SegmentKind.DECODE, where, attempt=attempt, note=note)
        at += times.decode_ns
    if lost or event.status == AttemptStatus.WORKER_DIED.value:
        note = event.message or event.code or event.status
        path.add((at, boot), SegmentKind.RECOVERY, where, attempt=attempt, note=note)
        return
    assert story.offered is not None
    target = f"{where} → {story.offered.source}"
    path.add((at, boot), SegmentKind.DELIVERY, target, attempt=attempt)


def _prefill_note(story: Story, cached_tokens: int | None) -> str:
    assert story.offered is not None
    note = f"{story.offered.event.prompt_tokens} tok"
    return note if cached_tokens is None else f"{note} · {cached_tokens} cached"


def _decode_note(n_tokens: int, decode_ns: int) -> str:
    if n_tokens <= 1:
        return f"{n_tokens} tok"
    return f"{n_tokens} tok · {decode_ns / (n_tokens - 1) / _NS_PER_MS:.1f} ms/tok"


def _add_unfinished(path: Path, story: Story, visit: Visit, where: str, *, lost: bool) -> None:
    """Running, or lost while it ran: only what was said on the way is known."""
    assert visit.started is not None
    attempt, boot = visit.started.event.attempt, visit.boot
    started = (visit.started.t, boot)
    if lost:
        path.add(started, SegmentKind.LOST_WORK, where, attempt=attempt)
        return
    note = _prefill_note(story, None)
    path.add(started, SegmentKind.PREFILL, where, attempt=attempt, note=note)
    if visit.first_token is not None:
        path.add((visit.first_token.t, boot), SegmentKind.DECODE, where, attempt=attempt)


def _add_loss(path: Path, story: Story, attempt: int, again: At[RequestSubmitted] | None) -> None:
    """Begin the recovery where the scheduler said so, if that was before the next submission.

    A scheduler that learns of the loss from the origin says it only after that.
    """
    lost = story.lost(attempt)
    if lost is None or path.marks[-1].kind is SegmentKind.RECOVERY:
        return
    if again is not None and (again.boot != lost.boot or again.t <= lost.t):
        return
    where = lost.event.replica or path.marks[-1].where
    at = (lost.t, lost.boot)
    path.add(at, SegmentKind.RECOVERY, where, attempt=attempt, note=lost.event.detail)


def _add_open_wait(path: Path, story: Story, submission: int, left_scheduler: int) -> None:
    """The wait that no routing ended: still going on, or ended by a rejection or the outcome."""
    rejected = story.rejected
    waits = [
        queued
        for queued in story.queued
        if queued.event.submission == submission and queued.t > left_scheduler
    ]
    if waits:
        first = waits[0]
        note = f"position {first.event.depth} of {first.event.capability}"
        at = (min(queued.event.received_ns for queued in waits), first.boot)
        path.add(at, SegmentKind.SCHEDULER_QUEUE, first.source, note=note)
    elif rejected is not None and rejected.event.received_ns is not None:
        at = (rejected.event.received_ns, rejected.boot)
        entry = story.offered.event.entry if story.offered is not None else SCHEDULER_ENTRY
        entered = entry != SCHEDULER_ENTRY and entry == rejected.source
        kind = SegmentKind.ENTRY_QUEUE if entered else SegmentKind.SCHEDULER_QUEUE
        path.add(at, kind, rejected.source)
    if rejected is not None:
        event = rejected.event
        note = f"{event.code}: {event.detail}" if event.detail else event.code
        assert story.offered is not None
        where = f"{rejected.source} → {story.offered.source}"
        path.add((rejected.t, rejected.boot), SegmentKind.DELIVERY, where, note=note)


def _cut_at_outcome(path: Path, story: Story) -> None:
    """What went on after the origin had given the request up is not part of its time."""
    outcome = story.outcome
    if outcome is None or outcome.event.outcome not in _UNDECIDED:
        return
    for index, mark in enumerate(path.marks):
        if index and mark.boot == outcome.boot and mark.t > outcome.event.end_ns:
            del path.marks[index:]
            break
    path.decided_at = {
        attempt: index for attempt, index in path.decided_at.items() if index < len(path.marks)
    }
