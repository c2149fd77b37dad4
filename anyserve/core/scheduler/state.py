"""What the scheduler remembers of a request and of a replica."""

from __future__ import annotations

from typing import Final

from anyserve.core.capability import most_tokens
from anyserve.core.effects import JournalRecord
from anyserve.core.lifecycle import TICKET, TicketState, step
from anyserve.core.messages import (
    Assign,
    Code,
    Credit,
    Entry,
    Load,
    Offer,
    Registration,
    ReplicaState,
)
from anyserve.core.messages import Request as WireRequest

Lane = tuple[str, tuple[tuple[str, str], ...]]
"""Where a request waits: capability and sorted attributes."""

NOBODY: Final[frozenset[str]] = frozenset()
"""More tokens than any request has."""


class Ticket:
    """One request, from its first message here to `Settled`."""

    __slots__ = (
        "attempt",
        "cancelled_by",
        "deaths",
        "delegated_at",
        "delegations",
        "delivery",
        "end_code",
        "excluded",
        "id",
        "lane",
        "last_attempt",
        "order",
        "overload",
        "received_ns",
        "recoveries",
        "refusals",
        "refused_by",
        "replica",
        "request",
        "returned_at",
        "returns",
        "sent_ns",
        "served_by",
        "state",
        "submission",
        "unservable_since_ns",
    )  # fmt: skip

    def __init__(self, request: WireRequest, submission: int, now: int) -> None:
        # What its end asks for comes first: compiled, fields lie in this order.
        self.id = request.id
        self.attempt = 0
        self.replica: str | None = None
        self.state = TicketState.NEW
        self.request = request
        self.delivery: Assign | Entry | None = None
        """What was sent to the replica, kept until it is known to have arrived."""
        self.served_by: tuple[str, int] | None = None
        """Replica and life where its attempt ended, which keep the frames until it is settled."""
        self.submission = submission
        self.received_ns = now
        self.order: tuple[int, int, str] = (0, 0, request.id)
        self.lane: Lane | None = None
        self.excluded = NOBODY
        """Replicas that cannot serve it: they said so, or delegated it."""
        self.refused_by = NOBODY
        """Replicas that refused: avoided while another could serve."""
        self.overload = False
        self.last_attempt = 0
        self.delegations = self.refusals = self.returns = self.recoveries = self.deaths = 0
        self.delegated_at = self.returned_at = 0
        """The highest attempts whose hand-backs are counted."""
        self.sent_ns = 0
        self.unservable_since_ns: int | None = None
        self.end_code: tuple[object, ...] | None = None
        self.cancelled_by: Code | None = None

    def go(self, state: TicketState) -> None:
        """Change state, as the table allows."""
        self.state = step(TICKET, self.state, state)

    def counters(self) -> JournalRecord:
        """What of this ticket must survive a restart."""
        return JournalRecord(
            kind="counters",
            id=self.id,
            capability=self.request.capability,
            delegations=self.delegations,
            refusals=self.refusals,
            returns=self.returns,
            recoveries=self.recoveries,
            deaths=self.deaths,
            last_attempt=self.last_attempt,
            delegated_at=self.delegated_at,
            returned_at=self.returned_at,
            submission=self.submission,
        )

    def restore(self, record: JournalRecord) -> None:
        """Take the counters of an earlier scheduler life."""
        self.delegations = record.delegations
        self.refusals = record.refusals
        self.returns = record.returns
        self.recoveries = record.recoveries
        self.deaths = record.deaths
        self.last_attempt = record.last_attempt
        self.delegated_at = record.delegated_at
        self.returned_at = record.returned_at


class Unacked:
    """An assignment that may not have arrived."""

    __slots__ = ("attempt", "id", "sent_ns")

    def __init__(self, request_id: str, attempt: int, sent_ns: int) -> None:
        self.id = request_id
        self.attempt = attempt
        self.sent_ns = sent_ns


class ReplicaView:
    """One replica as the scheduler sees it. Implements `policies.ReplicaInfo`."""

    __slots__ = (
        "assigned_total",
        "bound",
        "capabilities",
        "concurrency",
        "connection",
        "credit",
        "credit_sequence",
        "fill",
        "granted_total",
        "heard_ns",
        "hushed",
        "id",
        "in_use",
        "incarnation",
        "load",
        "lost_ns",
        "most_tokens",
        "offers",
        "ordinal",
        "orphans",
        "revision",
        "state",
        "synced",
        "taken_total",
        "takes_work",
        "turn",
        "unacked",
        "waiting",
    )  # fmt: skip

    def __init__(self, registration: Registration, now: int) -> None:
        # What every end and assignment asks for comes first: compiled, fields lie in this order.
        self.id = registration.replica
        self.incarnation = registration.incarnation
        self.bound: dict[str, Ticket] = {}
        self.heard_ns = now
        self.lost_ns: int | None = None
        self._reset_counters()
        self._take_load(Load())
        self.concurrency = 0
        self.credit = 0
        """Slots free to assign."""
        self.in_use = 0
        """Slots taken, in the scheduler's view."""
        self.fill = 0.0
        """`(in_use + waiting) / concurrency`."""
        self.capabilities: tuple[str, ...] = ()
        """Those of its offers, each once."""
        self.state = ReplicaState.STARTING
        self.takes_work = False
        """Whether it may be assigned to at all."""
        self.turn = 0
        self.most_tokens: dict[str, int] = {}
        """See `capability.most_tokens`."""
        self.offers: tuple[Offer, ...] = ()
        self.hushed: ReplicaState | None = None
        """The state it had when it was lost for its silence: it may be heard again as it was."""
        self.orphans: list[tuple[str, int, int]] = []
        """Request, attempt and submission of what was bound to it then."""
        self.connection = self.revision = -1
        self.take_registration(registration, now)

    def _reset_counters(self) -> None:
        self.granted_total = self.taken_total = self.assigned_total = 0
        self.credit_sequence = -1
        self.synced = False
        self.ordinal = 0
        self.unacked: dict[int, Unacked] = {}
        """Assignments of this life, by ordinal, that are not known to have arrived."""

    def is_newer(self, registration: Registration) -> bool:
        """Whether the registration is news: lives, connections and revisions only go up."""
        return (registration.incarnation, registration.connection, registration.revision) > (
            self.incarnation,
            self.connection,
            self.revision,
        )

    def take_registration(self, registration: Registration, now: int) -> None:
        """Become what the registration says; a new life starts with no credit."""
        if registration.incarnation != self.incarnation:
            self._reset_counters()
            self._take_load(Load())
        self.incarnation = registration.incarnation
        self.connection = registration.connection
        self.revision = registration.revision
        self.offers = tuple(registration.offers)
        self.capabilities = tuple(dict.fromkeys(offer.capability for offer in self.offers))
        self.most_tokens = most_tokens(self.offers)
        self.concurrency = registration.concurrency
        self.heard_ns = now
        self.lost_ns = self.hushed = None
        self.orphans = []
        self.become(registration.state)
        self._recount()

    def become(self, state: ReplicaState) -> None:
        """Change its state."""
        self.state = state
        self.takes_work = state is ReplicaState.READY or state is ReplicaState.SATURATED

    def take_credit(self, credit: Credit, now: int) -> bool:
        """Fold the counters of a credit; False where it is not news."""
        if credit.incarnation != self.incarnation or credit.sequence <= self.credit_sequence:
            return False
        self.heard_ns = now
        self.credit_sequence = credit.sequence
        self.granted_total = max(self.granted_total, credit.granted_total)
        self.taken_total = max(self.taken_total, credit.taken_total)
        if not self.synced:
            # A restarted scheduler learns here how much of the grants its earlier life used.
            self.assigned_total = max(self.assigned_total, credit.assigned_seen)
            self.synced = True
        if self.unacked:
            below = credit.ordinals_below
            for ordinal in [ordinal for ordinal in self.unacked if ordinal <= below]:
                del self.unacked[ordinal]
        self._take_load(credit.load)
        self._recount()
        return True

    def assign(self, request_id: str, attempt: int, now: int) -> int:
        """Use one credit for this attempt; its ordinal."""
        self.assigned_total += 1
        self.ordinal += 1
        self.unacked[self.ordinal] = Unacked(request_id, attempt, now)
        self._recount()
        return self.ordinal

    def _take_load(self, load: Load) -> None:
        self.load = load
        self.waiting = load.waiting
        """Requests in its entry queue, as last reported."""

    def _recount(self) -> None:
        """Bring what policies read in line with the counters; it is read more than changed."""
        credit = 0
        if self.synced:
            credit = self.granted_total - self.taken_total - self.assigned_total
        self.credit = credit
        self.in_use = in_use = self.concurrency - credit if credit < self.concurrency else 0
        self.fill = (in_use + self.waiting) / (self.concurrency or 1)

    @property
    def kv_usage(self) -> float:
        """Share of its KV cache in use; 0 where unknown."""
        return self.load.kv_usage or 0.0

    @property
    def may_serve_later(self) -> bool:
        """Whether a request can reasonably wait for it."""
        return self.takes_work or self.state is ReplicaState.STARTING
