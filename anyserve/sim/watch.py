"""What a log cannot show of the invariants: looked at while the simulation runs (`--check`)."""

from __future__ import annotations

from typing import Final

from anyserve.core.lifecycle import TicketState
from anyserve.core.scheduler import Scheduler

MOST_LOOKS: Final = 4096
"""Pairs of a waiting request and a replica that are looked at after one message."""


class Watch:
    """Collects violations of 'no shortcut' (4) and 'work conservation' (8)."""

    def __init__(self) -> None:
        self.shortcuts: list[str] = []
        self.idle: list[str] = []
        self._replicas: set[str] = set()

    def know(self, replica: str) -> None:
        """A replica of this name takes part."""
        self._replicas.add(replica)

    def sent(self, sender: str, receiver: str, message: object) -> None:
        """A message was sent: none goes from replica to replica."""
        if sender in self._replicas and receiver in self._replicas:
            self.shortcuts.append(f"{sender} sent {type(message).__name__} to {receiver}")

    def handled(self, scheduler: Scheduler, now: int) -> None:
        """The scheduler handled a message: nobody waits for whom a replica could serve now."""
        looks = 0
        for ticket in scheduler.tickets.values():
            if ticket.state is not TicketState.QUEUED:
                continue
            for view in scheduler.replicas.values():
                looks += 1
                if view.credit > 0 and scheduler.eligible(ticket, view):
                    self.idle.append(
                        f"{ticket.id} waits at {now} ns while {view.id} could serve it"
                    )
                if looks > MOST_LOOKS:
                    return
