"""What a state machine wants done. A driver (MQTT or the simulator) carries it out in order."""

from __future__ import annotations

import msgspec

from anyserve.core.enums import Inbox as Inbox
from anyserve.core.enums import OutcomeKind as OutcomeKind
from anyserve.core.events import AnyEvent
from anyserve.core.messages import AnyMessage, Code, Frame, Request


class Command(msgspec.Struct, frozen=True, gc=False):
    """Base of all effects that something is done for."""


Effect = Command | AnyEvent
"""An event among the effects is to be recorded: the driver adds source, time and sequence number.
"""


class Send(Command, frozen=True):
    """Publish `message` to the inbox of `to` (empty for the scheduler's)."""

    inbox: Inbox
    to: str
    message: AnyMessage
    lazy: bool = False
    """Nobody waits for it: it may travel with what comes next."""


class SetTimer(Command, frozen=True):
    """Call `handle(now, Wake())` at `at_ns`. One timer a machine; the newest setting counts."""

    at_ns: int


class Persist(Command, frozen=True):
    """Append `record` to the journal before any `Send` of the same list leaves."""

    record: JournalRecord


class StartWork(Command, frozen=True):
    """Replica: give this attempt to the worker. `capability` is the registered one that serves."""

    request: Request
    attempt: int
    submission: int


class CancelWork(Command, frozen=True):
    """Replica: stop this attempt at the next step boundary."""

    id: str
    attempt: int


class Deliver(Command, frozen=True):
    """Origin: these tokens (or this data) go to the client now, in order, each once."""

    id: str
    frame: Frame


class Finish(Command, frozen=True):
    """Origin: the request is over; `outcome` is decided and recorded."""

    id: str
    outcome: Outcome


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a request ended, and the code and sentence that say why.

    `finish` joins the reasons of all choices, `finishes` has them by choice. `capability` is the
    one that served, where an attempt said so.
    """

    kind: OutcomeKind
    code: Code | None = None
    message: str = ""
    retry_after_ms: int | None = None
    finish: str | None = None
    served_by: str | None = None
    attempt: int | None = None
    n_tokens: int = 0
    finishes: list[str] = []
    cached_tokens: int | None = None
    capability: str = ""
    delegations: int = 0


class JournalRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the scheduler's journal: what must survive the death of its process.

    `kind`: epoch (a new life; `epoch` is its number), counters (of request `id`, as they now are),
    settled (request `id` may be forgotten).
    """

    kind: str
    epoch: int = 0
    id: str = ""
    capability: str = ""
    """The rung that the request has reached."""
    delegations: int = 0
    refusals: int = 0
    returns: int = 0
    recoveries: int = 0
    deaths: int = 0
    last_attempt: int = 0
    delegated_at: int = 0
    """The highest attempt whose delegation is counted; the same said again is not."""
    returned_at: int = 0
    submission: int = 1
