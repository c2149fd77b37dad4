"""What a person can do to a running cluster or simulation. Runtime and sim implement it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Control(Protocol):
    """Verbs on a cluster. Each returns once the wish was handed over, not once it took effect.

    The effect shows in the events. A target that does not exist, or a verb that this cluster does
    not know, raises `AnyServeError` with a hint.
    """

    async def drain(self, replica: str) -> None:
        """Give `replica` nothing new; it finishes or hands back what it has."""

    async def resume(self, replica: str) -> None:
        """Take `replica` back into service after a drain."""

    async def kill(self, target: str) -> None:
        """Kill a replica, or `<replica>.worker`, without warning."""

    async def hang(self, target: str, duration_s: float | None = None) -> None:
        """Stop a replica or worker in its tracks, for ever or for a while."""

    async def slow(self, replica: str, factor: float) -> None:
        """Make each step of `replica` take `factor` times as long; 1 is normal."""

    async def partition(self, replica: str, duration_s: float | None = None) -> None:
        """Cut `replica` off from everybody, for ever or for a while."""

    async def send(
        self, capability: str, *, entry: str | None = None, options: Mapping[str, str] | None = None
    ) -> str:
        """Offer one request, at the scheduler or at the replica `entry`; gives its id."""

    async def rate(self, factor: float) -> None:
        """Offer the scenario's traffic `factor` times as fast; 0 pauses it."""
