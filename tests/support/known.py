"""What an observer of the whole cluster remembers of it; `ghost.py` folds it and checks."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from dataclasses import dataclass, field

from anyserve.core import effects as fx
from anyserve.core import messages as msg

EPOCHAL = (msg.SchedulerState, msg.StaleEpoch, msg.Assign, msg.CancelAttempt)


def token(replica: str, incarnation: int, attempt: int, index: int) -> int:
    """The token that this attempt gives at this place of the answer: no two attempts agree."""
    return zlib.crc32(f"{replica}/{incarnation}/{attempt}/{index}".encode())


def fits(offers: list[msg.Offer], request: msg.Request) -> bool:
    """Whether one of the offers matches the request by name, attributes and limits."""
    tokens = request.prompt_tokens + request.max_tokens
    return any(
        offer.capability == request.capability
        and set(request.attributes.items()) <= set(offer.attributes.items())
        and tokens <= (math.inf if offer.limits.max_tokens is None else offer.limits.max_tokens)
        for offer in offers
    )


@dataclass
class Told:
    """What one life of a process has been told is over."""

    cancelled: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    stopped: set[tuple[str, int]] = field(default_factory=set)
    working: set[tuple[str, int]] = field(default_factory=set)
    """Attempts in the engine of a replica that it was not told to stop."""
    epoch: int = 0

    def hear(self, message: object) -> None:
        """Fold what says that something is over, or that a new scheduler life began."""
        if isinstance(message, msg.Cancel):
            self.cancelled.add(message.id)
        elif isinstance(message, msg.Settled):
            self.settled.update(message.ids)
        elif isinstance(message, msg.CancelAttempt):
            self.stopped.add((message.id, message.attempt))
        if isinstance(message, EPOCHAL):
            self.epoch = max(self.epoch, message.epoch)

    def is_over(self, request: str, attempt: int) -> bool:
        """Whether this must not begin any more."""
        return (
            request in self.cancelled
            or request in self.settled
            or (request, attempt) in self.stopped
        )


@dataclass
class Ear:
    """What one life of the scheduler has heard of one replica, and used of its credit."""

    registration: msg.Registration
    sequence: int = -1
    granted: int = 0
    taken: int = 0
    assigned: int = 0

    @property
    def credit(self) -> int:
        """Slots that this replica has granted and that are not used, as far as was heard."""
        return self.granted - self.taken - self.assigned if self.sequence >= 0 else 0

    @property
    def key(self) -> tuple[int, int, int]:
        """Sorts registrations of one replica by age."""
        one = self.registration
        return one.incarnation, one.connection, one.revision


@dataclass
class Life:
    """One life of the scheduler, as seen from outside."""

    told: Told = field(default_factory=Told)
    ears: dict[str, Ear] = field(default_factory=dict)
    excluded: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By whom each request was refused, since somebody else could serve it."""
    overload: dict[str, bool] = field(default_factory=dict)
    ordinals: dict[tuple[str, int, int], tuple[str, int]] = field(default_factory=dict)


@dataclass
class Past:
    """The life of one request, over all processes and their lives."""

    request: msg.Request
    rung: str
    """The capability it has reached, by its newest attempt."""
    epoch: int
    """The scheduler life that its origin knew of when it was offered."""
    delegations: set[int] = field(default_factory=set)
    """Attempts whose hand-back for delegation was carried on."""
    asked: set[int] = field(default_factory=set)
    """Attempts that the scheduler was asked to delegate."""
    refusals: set[int] = field(default_factory=set)
    returns: set[int] = field(default_factory=set)
    bound: dict[int, str] = field(default_factory=dict)
    """As what each attempt was given to a replica by the scheduler."""
    attempts: dict[int, str] = field(default_factory=dict)
    refused_entry: set[str] = field(default_factory=set)
    """Replicas that gave it up themselves, in any life."""
    carried_on: set[tuple[str, int]] = field(default_factory=set)
    is_back: bool = False
    """Some hand-back of it was carried on; what comes back is never refused for fullness."""
    was_full: bool = False
    """It was told so already: an overload that nobody above could take."""
    forgotten: bool = False
    """A journal that knew of it, or may have, is gone."""
    cancelled: bool = False
    outcomes: list[fx.Outcome] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The request's."""
        return self.request.id
