"""What an origin remembers of one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from anyserve.core.lifecycle import ORIGIN, OriginState, step
from anyserve.core.messages import Frame, Request
from anyserve.core.order import NEVER
from anyserve.core.token_counts import TokenCounts

SCHEDULER: Final = "scheduler"

NO_GAPS: Final[Mapping[int, int]] = {}
_EMPTY: Final[dict[int, Any]] = {}
"""Where nothing is kept yet, as for most requests ever: a mapping for each would be an eighth of
what a simulation remembers of one. Never written to."""

NO_TOKENS: Final[list[int]] = []
"""Likewise."""

BUCKETS_NS: Final = tuple(round(1e6 * 10 ** (step_ / 10)) for step_ in range(-10, 51))
"""Upper bounds of the inter-token latency histogram: ten to the decade, 0.1 ms to 100 s."""


def bucket_place(gap_ns: int) -> int:
    """Which of `BUCKETS_NS` holds a gap; the last one is open."""
    low, high = 0, len(BUCKETS_NS) - 1
    while low < high:  # compiled, a third of what `bisect` takes, which knows only objects
        middle = (low + high) >> 1
        if BUCKETS_NS[middle] < gap_ns:
            low = middle + 1
        else:
            high = middle
    return low


def bucket_ns(gap_ns: int) -> int:
    """The upper bound of the bucket that holds a gap; the last one is open."""
    return BUCKETS_NS[bucket_place(gap_ns)]


def add_gaps(sums: dict[Any, int], gaps: Mapping[Any, int]) -> None:
    """Add a histogram of gaps to another. Keys stay the objects that they are: compiled code would
    make new ones, if it knew that they are numbers."""
    told: dict[Any, int] = gaps if isinstance(gaps, dict) else dict(gaps)
    for bound, count in told.items():
        sums[bound] = sums.get(bound, 0) + count


class Stream:
    """An attempt that streams: where, in which life of the replica, and which one."""

    __slots__ = ("attempt", "incarnation", "replica")

    def __init__(self, replica: str, incarnation: int, attempt: int) -> None:
        self.replica = replica
        self.incarnation = incarnation
        self.attempt = attempt

    def has(self, frame: Frame) -> bool:
        """Whether the frame is one of it."""
        return (
            frame.attempt == self.attempt
            and frame.incarnation == self.incarnation
            and frame.replica == self.replica
        )


class Pending(TokenCounts):
    """One request, from the offer to its outcome, with the tokens that its client has."""

    __slots__ = (
        "asked_again", "buffer", "deadline_ns", "delegations", "end_ns", "entry",
        "explained", "first_ns", "gap_since_ns", "heard_ns", "holder", "id", "intended_ns",
        "itl_ns", "known_to", "known_to_others", "last_attempt", "last_ns", "next_sequence",
        "repairs", "request", "resumable", "sent_epoch", "served_as", "state", "stream",
        "submission", "tokens",
    )  # fmt: skip

    def __init__(self, request: Request, entry: str, intended_ns: int, now: int) -> None:
        super().__init__()
        # What its last frame asks for comes first: compiled, fields lie in this order.
        self.id = request.id
        self.submission = 1
        self.state = OriginState.NEW
        self.stream: Stream | None = None
        """The attempt whose tokens the client gets; no other one's are taken."""
        self.next_sequence = 0
        self.buffer: dict[int, Frame] = _EMPTY
        """Frames that came before their turn, by their number."""
        self.heard_ns = now
        self.holder: str | None = None
        """Who said last that it has the request: `scheduler`, a replica, or nobody yet (None)."""
        self.explained = True
        """Whether all is told of it."""
        self.resumable = True
        self.first_ns = self.last_ns = NEVER
        self.itl_ns: dict[int, int] = _EMPTY
        self.request = request
        self.gap_since_ns: int | None = None
        self.repairs = 0
        self.asked_again = 0
        self.known_to: str | None = None
        """The first replica that may know of it: most often the only one."""
        self.known_to_others: tuple[str, ...] = ()
        self.tokens = NO_TOKENS
        """Those that another attempt could go on after (`keep`)."""
        self.served_as = ""
        self.delegations = 0
        self.last_attempt = 0
        self.sent_epoch = 0
        self.entry = entry
        self.intended_ns = intended_ns
        self.deadline_ns: int | None = None
        self.end_ns = 0
        """When it ends at the latest: at its deadline, or with its life."""

    def go(self, state: OriginState) -> None:
        """Change state, as the table allows."""
        self.state = step(ORIGIN, self.state, state)

    @property
    def has_answer(self) -> bool:
        """Whether a part of the answer has left for the client: tokens, or a handler's items."""
        return self.first_ns != NEVER

    def said_answer(self) -> str:
        """That part in words."""
        tokens = self.n_tokens()
        return f"{tokens} tokens" if tokens else "a part of the answer"

    def keep(self, frame: Frame) -> None:
        """Remember the tokens of a frame, for an attempt that would go on after them: of the first
        choice, as only requests of one are resumed."""
        if frame.choice == 0:
            self.tokens = self.tokens or []
            self.tokens += frame.tokens

    def note_tokens(
        self, choice: int, tokens: int, now: int, gaps: Mapping[int, int] = NO_GAPS
    ) -> None:
        """Tokens of a choice reached the client: fold the gap since the last ones into the
        histogram. None at all, where a handler's item did, counts as one there.

        The tokens of one delivery share its gap: `count` tokens after `g` ns count as `count` gaps
        of `g / count`, so the histogram's mass equals the time between first and last token. Where
        the delivery itself says its `gaps`, those count.
        """
        self.count(choice, tokens)
        count = tokens or 1
        if self.first_ns == NEVER:
            self.first_ns = now
            count -= 1
        if gaps and self.itl_ns:
            add_gaps(self.itl_ns, gaps)
        elif gaps:
            self.itl_ns = dict(gaps)
        elif count > 0:
            gap = bucket_ns((now - min(self.last_ns, now)) // count)
            self.itl_ns = self.itl_ns or {}
            self.itl_ns[gap] = self.itl_ns.get(gap, 0) + count
        self.last_ns = now

    def hold_back(self, frame: Frame) -> None:
        """Keep a frame until those before it have come."""
        self.buffer = self.buffer or {}
        self.buffer.setdefault(frame.sequence, frame)

    def heard_of(self, replica: str) -> None:
        """A replica knows of it."""
        if self.known_to is None:
            self.known_to = replica
        elif replica != self.known_to and replica not in self.known_to_others:
            self.known_to_others = (*self.known_to_others, replica)

    def replicas(self) -> list[str]:
        """Those that may know of it, by name."""
        if self.known_to is None:
            return []
        if not self.known_to_others:
            return [self.known_to]
        return sorted((self.known_to, *self.known_to_others))

    def begin_again(self, now: int) -> None:
        """Make ready for another submission: no attempt streams, nothing is buffered."""
        self.submission += 1
        self.stream = None
        self.next_sequence = 0
        self.buffer = _EMPTY
        self.gap_since_ns = None
        self.repairs = 0
        self.asked_again = 0
        self.holder = None
        self.heard_ns = now
