"""What a replica remembers of one attempt."""

from __future__ import annotations

from anyserve.core.lifecycle import SLOT, SlotState, step
from anyserve.core.messages import (
    AttemptStatus,
    Code,
    End,
    Frame,
    HandBack,
    Rejected,
    Request,
    Times,
)
from anyserve.core.order import NEVER, NO_ORDER
from anyserve.core.token_counts import TokenCounts

AttemptKey = tuple[str, int]
"""Request id and attempt number."""


class Said:
    """A frame that was sent, and the one before it."""

    __slots__ = ("before", "frame")

    def __init__(self, frame: Frame, before: Said | None) -> None:
        self.frame = frame
        self.before = before


class Slot(TokenCounts):
    """One attempt, from its arrival until the origin settles it, with the tokens that it made."""

    __slots__ = (
        "answer", "attempt", "behind", "cached_tokens", "delegations", "dropped", "earlier", "end",
        "ended_ns", "entered", "explained", "finish", "first_ns", "forget", "heard_ns", "id",
        "lost", "n_frames", "order", "ordinal", "origin", "other_finishes", "received_ns",
        "rejection", "repeat_ns", "repeats", "request", "resumed", "said", "scheduled_ns",
        "started_ns", "state", "stop_code", "submission",
    )  # fmt: skip

    def __init__(self, request: Request, attempt: int, submission: int, now: int) -> None:
        super().__init__()
        # What its tokens ask for comes first: compiled, fields lie in this order, and with many
        # attempts each line of them has to be fetched.
        self.attempt = attempt
        self.state = SlotState.NEW
        self.explained = True
        """Whether all is told of it."""
        self.entered = False
        self.forget = False
        self.dropped = False
        """It is no longer known here."""
        self.lost = False
        """Its worker died under it."""
        self.scheduled_ns = self.first_ns = NEVER
        self.id = request.id
        self.resumed = len(request.resume_ids)
        self.n_frames = 0
        """How many were sent: the next one's number."""
        self.submission = submission
        self.request = request
        self.said: Said | None = None
        """The newest of its frames. All are kept until it is settled: two, most often."""
        self.heard_ns = now
        """When its origin last got anything about it."""
        self.origin = request.origin
        self.started_ns = self.ended_ns = NEVER
        self.finish = ""
        """How its first choice ended."""
        self.received_ns = now
        self.stop_code: Code | None = None
        """Why the engine was told to stop it."""
        self.repeat_ns = NEVER
        """When its end is said again for the first time, and whose is after it (`Due`)."""
        self.behind: Slot | None = None
        self.end: End | None = None
        self.earlier: Slot | None = None
        """An attempt of the same request that came here before it and is not forgotten."""
        self.cached_tokens: int | None = None
        self.ordinal: int | None = None
        self.delegations = 0
        """How many brought it here."""
        self.order = NO_ORDER
        """Its place among those that wait here, where it does."""
        self.other_finishes: dict[int, str] | None = None
        """How others did, as soon as one has."""
        self.answer: HandBack | None = None
        """How it was handed back, to be said again when asked."""
        self.rejection: Rejected | None = None
        """That it was rejected here, likewise."""
        self.repeats = 0

    @property
    def key(self) -> AttemptKey:
        """Names the attempt."""
        return (self.id, self.attempt)

    @property
    def live(self) -> bool:
        """Waiting, held or running here."""
        return self.state is not SlotState.ENDED

    def go(self, state: SlotState) -> None:
        """Change state, as the table allows."""
        self.state = step(SLOT, self.state, state)

    def say(self, frame: Frame) -> None:
        """Keep a frame that is sent."""
        self.said = Said(frame, self.said)
        self.n_frames += 1

    def frames_from(self, sequence: int) -> list[Frame]:
        """Those that were sent, from this number on."""
        found: list[Frame] = []
        said = self.said
        while said is not None and said.frame.sequence >= sequence:
            found.append(said.frame)
            said = said.before
        found.reverse()
        return found

    def note_finish(self, choice: int, finish: str) -> None:
        """One of its choices ended like this."""
        if choice == 0:
            self.finish = finish
            return
        if self.other_finishes is None:
            self.other_finishes = {}
        self.other_finishes[choice] = finish

    def finishes(self, choices: int) -> list[str]:
        """How so many choices ended; empty where one has not."""
        found = [self.finish]
        if choices > 1:
            others = self.other_finishes or {}
            found += [others.get(choice, "") for choice in range(1, choices)]
        return found

    def totals(self) -> list[int]:
        """Per choice, the length of the answer with what was resumed."""
        return [count + self.resumed for count in self.by_choice()]

    def times(self, now: int) -> Times:
        """How the stay divides; the parts telescope from `received_ns` to `now`."""
        started = min(self.started_ns, now)
        scheduled = started if self.scheduled_ns == NEVER else self.scheduled_ns
        scheduled = min(max(scheduled, started), now)
        first = min(max(self.first_ns, scheduled), now)
        return Times(
            received_ns=self.received_ns,
            queue_ns=started - self.received_ns,
            engine_wait_ns=scheduled - started,
            prefill_ns=first - scheduled,
            decode_ns=now - first,
        )

    def make_end(
        self, status: AttemptStatus, now: int, code: Code | None = None, message: str = ""
    ) -> End:
        """The terminal report of this attempt."""
        totals = self.totals()
        return End(
            status=status,
            n_tokens=totals,
            finish=self.finishes(len(totals)),
            times=self.times(now),
            code=code,
            message=message,
            cached_tokens=self.cached_tokens,
        )
