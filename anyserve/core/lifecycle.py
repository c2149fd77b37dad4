"""The states of a request at each of its three owners, and every step that is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from anyserve.errors import ProtocolError

# Members of an enumeration are what they are; the inherited hash is a call into Python, and the
# tables below are looked at for every message.


class TicketState(Enum):
    """A request as the scheduler knows it."""

    __hash__ = object.__hash__

    NEW = "new"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    STARTED = "started"
    ENTERED = "entered"
    """Held by the replica where it entered, outside the scheduler's credits."""
    LOST = "lost"
    """Its replica or worker died; the origin submits it again or settles it."""
    ENDED = "ended"
    """Served or rejected; kept until the origin settles it."""


class SlotState(Enum):
    """An attempt as its replica knows it."""

    __hash__ = object.__hash__

    NEW = "new"
    WAITING = "waiting"
    """In the entry queue."""
    HELD = "held"
    """Assigned within the prefetch, no free slot yet."""
    RUNNING = "running"
    ENDED = "ended"
    """Its frames are kept until the origin settles it."""


class OriginState(Enum):
    """A request as its origin knows it."""

    __hash__ = object.__hash__

    NEW = "new"
    WAITING = "waiting"
    STREAMING = "streaming"
    SETTLED = "settled"


State = TypeVar("State", bound=Enum)


class Steps(Generic[State]):
    """The steps that are allowed from each state."""

    def __init__(self, allowed: Mapping[State, frozenset[State]]) -> None:
        self.allowed = allowed
        self._ways = [_Ways(before, tuple(after)) for before, after in allowed.items()]

    def allow(self, before: State, after: State) -> bool:
        """Whether this step is one of them."""
        for ways in self._ways:  # a few comparisons of pointers: less than to look up a key
            if ways.before is before:
                return any(one is after for one in ways.after)
        return False


class _Ways:
    """Where one state leads."""

    __slots__ = ("after", "before")

    def __init__(self, before: Any, after: tuple[Any, ...]) -> None:
        self.before = before
        self.after = after


_T, _S, _O = TicketState, SlotState, OriginState

TICKET: Final = Steps(
    {
        _T.NEW: frozenset({_T.QUEUED, _T.ENTERED, _T.STARTED, _T.ENDED}),
        _T.QUEUED: frozenset({_T.QUEUED, _T.ASSIGNED, _T.ENTERED, _T.STARTED, _T.ENDED}),
        _T.ASSIGNED: frozenset({_T.QUEUED, _T.STARTED, _T.LOST, _T.ENDED, _T.ENTERED}),
        _T.STARTED: frozenset({_T.QUEUED, _T.STARTED, _T.LOST, _T.ENDED, _T.ENTERED}),
        _T.ENTERED: frozenset({_T.QUEUED, _T.LOST, _T.ENDED, _T.ENTERED}),
        _T.LOST: frozenset({_T.QUEUED, _T.ENTERED, _T.ENDED}),
        _T.ENDED: frozenset({_T.QUEUED, _T.ENTERED, _T.ENDED}),
    }
)
"""ENDED leads back by a re-submission: an attempt that its replica ended may still be lost to the
origin, which then asks again; or by a hand-back that tells how an attempt ended unheard. STARTED
leads to itself where an earlier scheduler life's attempt turns out to run."""

SLOT: Final = Steps(
    {
        _S.NEW: frozenset({_S.WAITING, _S.HELD, _S.RUNNING, _S.ENDED}),
        _S.WAITING: frozenset({_S.RUNNING, _S.ENDED}),
        _S.HELD: frozenset({_S.RUNNING, _S.ENDED}),
        _S.RUNNING: frozenset({_S.ENDED}),
        _S.ENDED: frozenset(),
    }
)

ORIGIN: Final = Steps(
    {
        _O.NEW: frozenset({_O.WAITING, _O.SETTLED}),
        _O.WAITING: frozenset({_O.STREAMING, _O.SETTLED}),
        _O.STREAMING: frozenset({_O.WAITING, _O.SETTLED}),
        _O.SETTLED: frozenset(),
    }
)
"""STREAMING leads back to WAITING when the attempt that streamed was lost."""


def step(table: Steps[State], before: State, after: State) -> State:
    """`after`, where the table allows it.

    Raises:
        ProtocolError: the table does not; this is a bug in a state machine, never bad input.
    """
    if not table.allow(before, after):
        raise ProtocolError(
            f"no way from {before.value} to {after.value}", code="illegal_transition"
        )
    return after
