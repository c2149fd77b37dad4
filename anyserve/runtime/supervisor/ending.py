"""How the end of a cluster was asked for; each level is more urgent than the one before."""

from __future__ import annotations

import asyncio
from enum import IntEnum


class Urgency(IntEnum):
    """How much time the processes have."""

    NONE = 0
    DRAIN = 1
    """Running requests may come to their end."""
    FAST = 2
    """The foreground died: in order, but within seconds."""
    NOW = 3
    """SIGKILL."""


class Ending:
    """The most urgent wish so far, and why. Wishes never become less urgent."""

    def __init__(self) -> None:
        self.urgency = Urgency.NONE
        self.reason = ""
        self.exit_code = 0
        self._reached = {level: asyncio.Event() for level in Urgency}

    def request(self, urgency: Urgency, reason: str, *, exit_code: int = 0) -> None:
        """Wish for the end. The first reason and exit code stay."""
        if self.urgency is Urgency.NONE:
            self.reason = reason
            self.exit_code = exit_code
        self.urgency = max(self.urgency, urgency)
        for level, event in self._reached.items():
            if level <= self.urgency:
                event.set()

    async def reached(self, urgency: Urgency) -> None:
        """Return once the end is wished at least this urgently."""
        await self._reached[urgency].wait()
