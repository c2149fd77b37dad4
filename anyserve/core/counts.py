"""What is counted of a request of which not all is told (`Explains`): as much as figures need.

A simulation of a million requests hands these on for each and makes events of a sample only. Who
runs live never sees one: there all is told of every request.
"""

from __future__ import annotations

from collections.abc import Mapping

from anyserve.core.effects import Command


class Count(Command, frozen=True):
    """Base of all: stands for the event of the same name."""


class OfferedCount(Count, frozen=True):
    """Origin: a client wants this."""

    id: str
    capability: str
    prompt_tokens: int
    intended_ns: int


class RoutedCount(Count, frozen=True):
    """Scheduler: bound to a replica."""

    id: str
    attempt: int
    replica: str
    capability: str
    received_ns: int


class StartedCount(Count, frozen=True):
    """Replica: given to the engine."""

    id: str
    received_ns: int


class EndedCount(Count, frozen=True):
    """Replica: over here. `prefill_ns`: from its first place in a step to its first token."""

    status: str
    n_tokens: int
    prefill_ns: int


class OutcomeCount(Count, frozen=True):
    """Origin: decided. `first_ns` is `order.NEVER` where nothing of an answer came."""

    id: str
    outcome: str
    code: str | None
    served_by: str | None
    n_tokens: int
    first_ns: int
    end_ns: int
    itl_ns: Mapping[int, int]
