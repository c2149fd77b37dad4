"""What the three state machines have in common, for those who drive them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyserve.core.effects import Effect

Explains = Callable[[str], bool]
"""Whether all is told of a request, by its id: which replicas were candidates and why others were
none, and each step on its way. Of others only what is counted is handed on (`counts`), and what
seldom happens to any."""


def explain_all(_request_id: str) -> bool:
    """Tell all of every request."""
    return True


class Machine:
    """A scheduler, a replica or an origin."""

    def handle(self, now: int, message: Any) -> list[Effect]:
        """Fold one input: a message, or what the driver tells it."""
        raise NotImplementedError
