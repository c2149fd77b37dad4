"""Every message on the wire, with what makes it idempotent. `docs/protocol.md` is its prose.

Payloads are JSON lists of these structs; `type` names the struct. A decoder ignores fields that it
does not know and counts tags that it does not know. Times are integers in nanoseconds of the
sender's monotonic clock unless the name says otherwise (`_ms`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any, Final, TypeVar

import msgspec

from anyserve.core.enums import AttemptStatus as AttemptStatus
from anyserve.core.enums import Code as Code
from anyserve.core.enums import DelegateReason as DelegateReason
from anyserve.core.enums import RefuseReason as RefuseReason
from anyserve.core.enums import ReplicaState as ReplicaState
from anyserve.core.objects import ObjRef
from anyserve.core.parts import Limits as Limits
from anyserve.core.parts import Load as Load
from anyserve.core.parts import Offer as Offer
from anyserve.core.parts import Times as Times

PROTOCOL_VERSION: Final = 1
SPOKEN_VERSIONS: Final = (PROTOCOL_VERSION, PROTOCOL_VERSION - 1)
"""Versions that are understood: this one and the one before."""
ATTEMPTS_PER_EPOCH: Final = 1000
"""`attempt = epoch * 1000 + n`: attempts of a later scheduler life sort after all earlier ones.
An attempt that began where the request entered has epoch 0: it is number 1."""

ENTRY_ATTEMPT: Final = 1


_Part = TypeVar("_Part", bound="Message | Record")
_version = repeat(PROTOCOL_VERSION).__next__
"""A factory that calls no Python: it is asked for every message."""


class Message(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type", gc=False
):
    """Base of all messages. A factory default is always written, so `v` stands in every payload."""

    v: int = msgspec.field(default_factory=_version)


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of the parts that messages are made of."""


def changed(part: _Part, **fields: Any) -> _Part:
    """A copy with these fields changed."""
    return msgspec.structs.replace(part, **fields)


def origin_of(request_id: str) -> str:
    """The origin that owns a request."""
    place = request_id.find("/")
    return request_id if place < 0 else request_id[:place]


CANCEL_CODES: Final = frozenset({Code.CLIENT_CANCELLED, Code.ORIGIN_LOST, Code.SHUTDOWN})
"""With which somebody cancelled a request, rather than one attempt of it."""


class Deadline(Record, frozen=True):
    """When a request is worthless. On the host with the same `boot`, `at_ns` is exact on the shared
    monotonic clock; elsewhere `left_ms`, what was left when the message was sent, counts."""

    boot: str
    at_ns: int
    left_ms: int


class Request(Record, frozen=True):
    """What routing knows of a request, and the body that only worker and origin read.

    `capability` is what is wanted now (it moves up the ladder only); `asked` is what the client
    wanted. `prompt_tokens + max_tokens` is held against a replica's context limit. Lower
    `priority` goes first. `first_epoch` is the scheduler epoch the origin knew when it was offered.
    `affinity` names the beginnings of its prompt that others may share, the shortest first, joined
    by `/`. `resume_ids` are tokens the client already has: a forced prefix that the attempt
    continues.
    """

    id: str
    asked: str
    capability: str
    prompt_tokens: int
    max_tokens: int
    offered_ns: int
    boot: str = ""
    """The host life whose monotonic clock `offered_ns` is on."""
    lifetime_ms: int = 600_000
    attributes: Mapping[str, str] = {}
    priority: int = 0
    deadline: Deadline | None = None
    first_epoch: int = 0
    affinity: str | None = None
    resume_ids: list[int] = []
    parent: str = ""
    """The request whose handler asked for this one; empty for a client's own."""
    depth: int = 0
    """How many handlers stand between the client and this request."""
    body: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def origin(self) -> str:
        """The origin that owns this request."""
        return origin_of(self.id)


NO_DATA: Final = msgspec.Raw(b"null")
"""`Raw | None` would decode as None only."""


class Body(Record, frozen=True):
    """What the worker reads of a request.

    For an engine: `prompt_ids` and `sampling`, the engine's own parameter struct. For a handler
    (task `handle`): `payload`, any JSON, or `payload_ref`, the object that holds it.
    """

    prompt_ids: list[int] = []
    task: str = "generate"
    sampling: msgspec.Raw = msgspec.Raw(b"{}")
    payload: msgspec.Raw = NO_DATA
    payload_ref: ObjRef | None = None


# --- origins -> scheduler ----------------------------------------------------------------------


class Submit(Message, frozen=True, tag="submit"):
    """A request enters at the scheduler. Key: `(request.id, submission)`; a re-send is the same.

    `submission` counts the origin's recoveries: 1 first, 2 after an attempt was lost.
    `last_attempt` is the highest attempt that the origin has heard of.
    """

    request: Request
    epoch: int
    submission: int = 1
    last_attempt: int = 0
    resent: bool = False


class Cancel(Message, frozen=True, tag="cancel"):
    """The origin no longer wants a request. Key: `id`. To the scheduler and to where it entered."""

    id: str
    code: Code = Code.CLIENT_CANCELLED


class Settled(Message, frozen=True, tag="settled"):
    """The outcome is decided; every holder forgets. Key: `id`s, and all `n < settled_below`.

    `all_open` marks the form said to a new scheduler life or after a reconnect: what it does not
    name as settled, by id or watermark, is still open.
    """

    origin: str
    incarnation: int
    ids: list[str]
    settled_below: int = 0
    all_open: bool = False


class Operate(Message, frozen=True, tag="operate"):
    """An operator's wish for a replica, passed on by the scheduler as `Control`. Idempotent."""

    replica: str
    action: str
    factor: float = 1.0


# --- replicas -> scheduler ---------------------------------------------------------------------


class HandBack(Message, frozen=True):
    """Common part of the three ways a living replica gives a request back. Key: `(id, attempt)`."""

    id: str
    attempt: int
    submission: int
    replica: str
    incarnation: int
    epoch: int
    request: Request


class Delegate(HandBack, frozen=True, tag="delegate"):
    """This replica cannot serve it: route it again, at or above `min_rung` of the ladder."""

    reason: DelegateReason
    min_rung: str
    detail: str = ""


class Refuse(HandBack, frozen=True, tag="refuse"):
    """The assignment rested on something stale; costs no delegation."""

    reason: RefuseReason
    detail: str = ""


class Return(HandBack, frozen=True, tag="return"):
    """Draining and not started; costs no delegation."""


class Credit(Message, frozen=True, tag="credit"):
    """Cumulative counters of one incarnation, also the heartbeat. Key: `sequence`, highest wins.

    `granted_total`: slots offered since start. `taken_total`: slots used by requests that entered
    here. `assigned_seen`: assignments received, of all epochs. Free to assign = granted - taken -
    assigned. `ordinals_below`: all assignments of this epoch up to this ordinal have arrived.
    """

    replica: str
    incarnation: int
    epoch: int
    sequence: int
    granted_total: int
    taken_total: int
    assigned_seen: int
    ordinals_below: int = 0
    load: Load = Load()


class Held(Record, frozen=True):
    """One attempt that a replica holds, said again to a scheduler that has restarted."""

    id: str
    attempt: int
    submission: int
    started: bool
    entered: bool


class Holding(Message, frozen=True, tag="holding"):
    """All that a replica holds, sent before its first credit of a new epoch. Key: incarnation."""

    replica: str
    incarnation: int
    epoch: int
    held: list[Held]


class Admitted(Message, frozen=True, tag="admitted"):
    """A request that entered here stays here. Key: `(id, attempt)`."""

    id: str
    attempt: int
    submission: int
    replica: str
    incarnation: int


class Started(Message, frozen=True, tag="started"):
    """An assigned attempt has begun; the scheduler may forget its payload. Key: `(id, attempt)`."""

    id: str
    attempt: int
    replica: str
    incarnation: int


class Ended(Message, frozen=True, tag="ended"):
    """An attempt is over here. Key: `(id, attempt)`. `started`: it was running when it ended.

    `credit`: what the end did to the counters, with a key of its own.
    """

    id: str
    attempt: int
    replica: str
    incarnation: int
    status: AttemptStatus
    started: bool = True
    credit: Credit | None = None


def ended_with(ended: Ended, credit: Credit) -> Ended:
    """The same end, which brings the counters along: `changed`, for what every request sends."""
    return Ended(
        id=ended.id,
        attempt=ended.attempt,
        replica=ended.replica,
        incarnation=ended.incarnation,
        status=ended.status,
        started=ended.started,
        credit=credit,
    )


# --- scheduler -> replicas ---------------------------------------------------------------------


class Assign(Message, frozen=True, tag="assign"):
    """The scheduler binds a request to a slot. Key: `(request.id, attempt)`, `ordinal` per life.

    `ordinal` counts the assignments of this scheduler life to this replica incarnation, from 1.
    """

    request: Request
    attempt: int
    submission: int
    incarnation: int
    epoch: int
    ordinal: int
    delegations: int = 0


class Entry(Message, frozen=True, tag="entry"):
    """A request enters at a replica: from an origin (attempt 1), or from the scheduler, when only
    higher rungs than the one asked are offered. Key: `(request.id, attempt)`."""

    request: Request
    attempt: int = ENTRY_ATTEMPT
    submission: int = 1
    epoch: int = 0
    incarnation: int | None = None
    """The life it is meant for; None from origins, which do not know it."""
    delegations: int = 0


class CancelAttempt(Message, frozen=True, tag="cancel_attempt"):
    """Stop this attempt, or never start it. Key: `(id, attempt)`. `ordinal` frees its credit even
    where the assignment never arrived. `code` is one of `CANCEL_CODES` where somebody cancelled the
    request; otherwise only this attempt is not wanted, and an origin that reads it recovers."""

    id: str
    attempt: int
    incarnation: int
    epoch: int
    ordinal: int | None = None
    code: Code = Code.REPLICA_LOST


class Yield(Message, frozen=True, tag="yield"):
    """Requests wait at the scheduler while this replica's own queue takes every freed slot: leave
    the next one to them. A hint, sent at most once a heartbeat; repeating it does no harm."""

    epoch: int


class Control(Message, frozen=True, tag="control"):
    """An operator's wish. `action`: drain, resume, slow. Idempotent by meaning."""

    action: str
    factor: float = 1.0


# --- scheduler, replicas -> origins ------------------------------------------------------------


class Accepted(Message, frozen=True, tag="accepted"):
    """The scheduler has the request, as `capability`. Key: `id`. Absent where a submitted request
    was bound at once."""

    id: str
    capability: str
    epoch: int
    submission: int


class Rejected(Message, frozen=True, tag="rejected"):
    """Nobody will serve it. Key: `(id, submission)`. `retry_after_ms` where waiting may help."""

    id: str
    submission: int
    code: Code
    detail: str = ""
    retry_after_ms: int | None = None


class AttemptLost(Message, frozen=True, tag="attempt_lost"):
    """The replica or worker that held this attempt is gone. Key: `(id, attempt)`.

    `capability`: the rung that the attempt was of, for an origin that has not heard of it yet and
    submits the request again, maybe to a scheduler that knows nothing of it.
    """

    id: str
    attempt: int
    submission: int
    code: Code
    started: bool
    capability: str = ""


class End(Record, frozen=True):
    """The terminal part of a stream: what the attempt came to."""

    status: AttemptStatus
    n_tokens: list[int]
    finish: list[str]
    times: Times
    code: Code | None = None
    message: str = ""
    cached_tokens: int | None = None


class Frame(Message, frozen=True, tag="frame"):
    """Tokens of one choice from one engine step or several. Key: `(id, attempt, sequence)`; QoS 0.

    `start` is the index of the first token within the choice, counted from the whole answer's
    beginning (an attempt that resumes k tokens starts at k). `data` is for origin and worker only
    (log probabilities, an embedding). The frame with `end` is the last and is repeated until
    `Settled`. The first one of an attempt says as which `capability` it is served, and after how
    many `delegations`.
    """

    id: str
    attempt: int
    submission: int
    replica: str
    incarnation: int
    sequence: int
    start: int = 0
    tokens: list[int] = []
    choice: int = 0
    data: msgspec.Raw = NO_DATA
    gaps: Mapping[int, int] = {}
    """Where these tokens are of several steps: how far each came after the one before it, as
    {upper bound of a bucket in ns: tokens}. Empty: one step made them all."""
    end: End | None = None
    capability: str = ""
    delegations: int = 0

    @property
    def has_data(self) -> bool:
        """Whether something came beside tokens."""
        return self.data != NO_DATA


class KeepAlive(Message, frozen=True, tag="keep_alive"):
    """These attempts live, though no token came lately. QoS 0, about once a second."""

    replica: str
    incarnation: int
    held: list[tuple[str, int]]


class UnknownAttempt(Message, frozen=True, tag="unknown_attempt"):
    """A repair was asked for an attempt that is not here; it counts as lost."""

    id: str
    attempt: int
    replica: str


class StaleEpoch(Message, frozen=True, tag="stale_epoch"):
    """Your message was meant for an earlier scheduler life; say it again to this one."""

    epoch: int


# --- origins -> replicas -----------------------------------------------------------------------


class Repair(Message, frozen=True, tag="repair"):
    """Frames from `sequence` on did not arrive: send them again. Key: `(id, attempt)`."""

    id: str
    attempt: int
    sequence: int


# --- retained ----------------------------------------------------------------------------------


class Registration(Message, frozen=True, tag="registration"):
    """What a replica is and offers. Key: `(incarnation, connection, revision)`, highest wins."""

    replica: str
    incarnation: int
    connection: int
    revision: int
    state: ReplicaState
    offers: list[Offer]
    concurrency: int
    prefetch: int = 0
    boot: str = ""
    engine: str = ""
    pid: int = 0
    restarting: bool = False
    """Down, but its supervisor brings it back: requests may wait for it."""


class SchedulerState(Message, frozen=True, tag="scheduler_state"):
    """Who schedules now, and the rules that all obey. Key: `epoch`, highest wins."""

    epoch: int
    incarnation: int
    ladder: Mapping[str, str]
    capabilities: list[str]
    delegation_limit: int
    boot: str = ""


class Gone(Message, frozen=True, tag="gone"):
    """A last will: this connection of this life broke."""

    source: str
    incarnation: int
    connection: int


SchedulerInbound = (
    Submit | Cancel | Settled | Operate | Delegate | Refuse | Return | Credit | Holding | Admitted
    | Started | Ended | Registration | Gone
)  # fmt: skip
ReplicaInbound = (
    Assign | Entry | CancelAttempt | Yield | Control | Cancel | Settled | Repair | StaleEpoch
    | SchedulerState | Registration
)  # fmt: skip
OriginInbound = (
    Frame | KeepAlive | Accepted | Rejected | AttemptLost | UnknownAttempt | StaleEpoch
    | SchedulerState
)  # fmt: skip
AnyMessage = SchedulerInbound | ReplicaInbound | OriginInbound
