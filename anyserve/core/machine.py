"""What the three state machines have in common, for those who drive them."""

from __future__ import annotations

from typing import Any

from anyserve.core.effects import Effect


class Machine:
    """A scheduler, a replica or an origin."""

    def handle(self, now: int, message: Any) -> list[Effect]:
        """Fold one input: a message, or what the driver tells it."""
        raise NotImplementedError
