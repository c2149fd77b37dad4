"""In which order waiting requests get a freed slot, at the scheduler and at an entry replica."""

from __future__ import annotations

from typing import Final

from anyserve.core.messages import Request
from anyserve.core.spec import SchedulerSpec

MS: Final = 1_000_000
"""Nanoseconds in a millisecond."""
NEVER: Final = 1 << 60
"""A time that no clock reaches."""

Order = tuple[int, int, str]
"""Sorts waiting requests; smaller goes first."""
NO_ORDER: Final[Order] = (0, 0, "")
"""Of a request that does not wait."""


def deadline_ns(request: Request, boot: str, now: int) -> int | None:
    """The deadline on this host's clock: exact for the same boot, else what was left is added to
    `now`, the time of arrival."""
    deadline = request.deadline
    if deadline is None:
        return None
    return deadline.at_ns if deadline.boot == boot else now + deadline.left_ms * MS


class Ordering:
    """The places of waiting requests, by the cluster's rules.

    One step of priority is worth `ageing_ms` of waiting, so behind any bounded arrival rate a
    request waits at most `ageing_ms` longer per step of priority between them. With
    `order: deadline` the earlier deadline goes first, and a request without one counts as due
    `ageing_ms` after it was offered.
    """

    __slots__ = ("_ageing_ns", "_boot", "_by_deadline")

    def __init__(self, rules: SchedulerSpec, boot: str) -> None:
        self._ageing_ns = rules.ageing_ms * MS
        self._by_deadline = rules.order == "deadline"
        self._boot = boot

    def place(self, request: Request, now: int) -> Order:
        """The place of a request that arrived at `now`."""
        first = request.offered_ns if request.boot == self._boot else now
        key = first
        if self._by_deadline:
            due = first + self._ageing_ns
            key = min(due, deadline_ns(request, self._boot, now) or due)
        if request.priority:  # compiled, a product of large numbers costs more than all of this
            key += request.priority * self._ageing_ns
        return (key, first, request.id)
