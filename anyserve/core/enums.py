"""The enumerations that messages, effects and events are made of.

They have a module of their own because it can be compiled (`docs/adr/0090`): a member is then one
load from memory, where the interpreter asks the class for it through three calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final


class Inbox(StrEnum):
    """Where a message can be sent; the driver makes a topic of it."""

    __hash__ = object.__hash__  # members are single; the inherited one is a call into Python

    SCHEDULER = "sched/in"
    SCHEDULER_STATE = "sched/state"
    REPLICA = "replica/{}/in"
    REPLICA_ENTRY = "replica/{}/entry"
    REPLICA_REGISTRATION = "replica/{}/reg"
    ORIGIN = "origin/{}/in"


class ReplicaState(Enum):
    """Where a replica is in its life; only `ready` ones are given work."""

    STARTING = "starting"
    READY = "ready"
    SATURATED = "saturated"
    DRAINING = "draining"
    LOST = "lost"
    STOPPED = "stopped"


class Code(Enum):
    """Why a request was rejected, failed, cancelled or expired: the stable codes that users see."""

    NO_REPLICA = "no_replica"
    UNKNOWN_CAPABILITY = "unknown_capability"
    QUEUE_FULL = "queue_full"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    DELEGATION_EXHAUSTED = "delegation_exhausted"
    REFUSE_EXHAUSTED = "refuse_exhausted"
    RETURN_EXHAUSTED = "return_exhausted"
    TOO_LONG = "too_long"
    OVERLOADED = "overloaded"
    STALE = "stale"
    INVALID = "invalid_request"
    ENGINE_ERROR = "engine_error"
    HANDLER_ERROR = "handler_error"
    REPLICA_LOST = "replica_lost"
    WORKER_DIED = "worker_died"
    POISONED = "poisoned"
    RESUME_REFUSED = "resume_refused"
    CLIENT_CANCELLED = "client_cancelled"
    ORIGIN_LOST = "origin_lost"
    SHUTDOWN = "shutdown"


class DelegateReason(Enum):
    """Why a replica cannot serve a request that entered at it."""

    NOT_REGISTERED = "not_registered"
    TOO_LONG = "too_long"
    ATTRIBUTE_LIMIT = "attribute_limit"
    OVERLOAD = "overload"


class RefuseReason(Enum):
    """What an assignment rested on that no longer holds."""

    STALE_EPOCH = "stale_epoch"
    STALE_CREDIT = "stale_credit"
    STALE_REGISTRATION = "stale_registration"


class AttemptStatus(Enum):
    """How an attempt ended, as its replica saw it."""

    __hash__ = object.__hash__

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WORKER_DIED = "worker_died"


class OutcomeKind(Enum):
    """The five ways a request can end."""

    __hash__ = object.__hash__

    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


STATUS_WORDS: Final[Mapping[AttemptStatus, str]] = {one: one.value for one in AttemptStatus}
"""What each is called where it is written down: a dictionary answers sooner than the member."""
OUTCOME_WORDS: Final[Mapping[OutcomeKind, str]] = {one: one.value for one in OutcomeKind}
