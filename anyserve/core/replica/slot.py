"""What a replica remembers of one attempt."""

from __future__ import annotations

from typing import Final

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
from anyserve.core.order import Order

AttemptKey = tuple[str, int]
"""Request id and attempt number."""

_NOTHING_MADE: Final = [0]


class Slot:
    """One attempt, from its arrival until the origin settles it."""

    __slots__ = (
        "answer", "attempt", "cached_tokens", "counts", "delegations", "earlier", "end", "ended_ns",
        "entered", "finishes", "first_ns", "forget", "frames", "heard_ns", "id", "lost", "order",
        "ordinal", "origin", "received_ns", "rejection", "repeats", "request", "resumed",
        "scheduled_ns", "started_ns", "state", "stop_code", "submission",
    )  # fmt: skip

    def __init__(
        self, request: Request, attempt: int, submission: int, now: int, *, order: Order
    ) -> None:
        self.id = request.id
        self.origin = request.origin
        self.attempt = attempt
        self.request = request
        self.submission = submission
        self.order = order
        self.state = SlotState.NEW
        self.entered = False
        self.ordinal: int | None = None
        self.received_ns = now
        self.started_ns: int | None = None
        self.scheduled_ns: int | None = None
        self.first_ns: int | None = None
        self.ended_ns: int | None = None
        self.heard_ns = now
        """When its origin last got anything about it."""
        self.resumed = len(request.resume_ids)
        self.counts: list[int] = []
        """Tokens made, by choice."""
        self.finishes: dict[int, str] | None = None
        """How its choices ended, as soon as one has."""
        self.cached_tokens: int | None = None
        self.delegations = 0
        """How many brought it here."""
        self.frames: list[Frame] = []
        self.end: End | None = None
        self.answer: HandBack | None = None
        """How it was handed back, to be said again when asked."""
        self.rejection: Rejected | None = None
        """That it was rejected here, likewise."""
        self.repeats = 0
        self.earlier: Slot | None = None
        """An attempt of the same request that came here before it and is not forgotten."""
        self.stop_code: Code | None = None
        """Why the engine was told to stop it."""
        self.forget = False
        self.lost = False
        """Its worker died under it."""

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

    def note_finish(self, choice: int, finish: str) -> None:
        """One of its choices ended like this."""
        if self.finishes is None:
            self.finishes = {}
        self.finishes[choice] = finish

    def made_tokens(self) -> int:
        """Tokens that this attempt itself produced, over all choices."""
        made = 0
        for tokens in self.counts:
            made += tokens
        return made

    def made_of(self, choice: int) -> int:
        """Those of one choice."""
        return self.counts[choice] if choice < len(self.counts) else 0

    def note_tokens(self, choice: int, tokens: int) -> None:
        """So many more of a choice were made."""
        counts = self.counts
        while len(counts) <= choice:
            counts.append(0)
        counts[choice] += tokens

    def totals(self) -> list[int]:
        """Per choice, the length of the answer with what was resumed."""
        return [count + self.resumed for count in self.counts or _NOTHING_MADE]

    def times(self, now: int) -> Times:
        """How the stay divides; the parts telescope from `received_ns` to `now`."""
        started = self.started_ns if self.started_ns is not None else now
        scheduled = min(max(self.scheduled_ns or started, started), now)
        first = min(max(self.first_ns or now, scheduled), now)
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
        totals, finishes = self.totals(), self.finishes or {}
        return End(
            status=status,
            n_tokens=totals,
            finish=[finishes.get(choice, "") for choice in range(len(totals))],
            times=self.times(now),
            code=code,
            message=message,
            cached_tokens=self.cached_tokens,
        )
