"""The traffic plan as data: what the player and the simulator read. No scenario file is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

SCHEDULER_ENTRY: Final = "scheduler"

Segment = tuple[int, int]
"""A part of a prompt: (hash, tokens). Equal hashes have equal tokens, as far as both go."""


class PlannedPhase(msgspec.Struct, frozen=True):
    """A phase on the clock that starts with the traffic."""

    name: str
    start_ns: int
    end_ns: int


class PlannedRequest(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request. `n` counts from 0 in order of time; `entry` is a replica's id or `scheduler`.

    `sampling` holds the engine's parameters without `max_tokens`.
    """

    n: int
    at_ns: int
    stream: str
    phase: str
    capability: str
    segments: tuple[Segment, ...]
    max_tokens: int
    entry: str = SCHEDULER_ENTRY
    task: Literal["generate", "embed", "handle"] = "generate"
    attributes: Mapping[str, str] = {}
    priority: int = 0
    deadline_ms: int | None = None
    sampling: Mapping[str, Any] = {}
    payload: Any = None
    """For a handler: any JSON."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return sum(length for _hash, length in self.segments)

    @property
    def affinity(self) -> str | None:
        """Names the shared beginning of the prompt, where it has one."""
        return f"{self.segments[0][0]:x}" if len(self.segments) > 1 else None


class TrafficPlan(msgspec.Struct, frozen=True):
    """All requests, sorted by time. JSON both ways with msgspec."""

    seed: int
    phases: tuple[PlannedPhase, ...]
    requests: tuple[PlannedRequest, ...]

    @property
    def duration_ns(self) -> int:
        """From the start of traffic to the end of its last phase."""
        return self.phases[-1].end_ns if self.phases else 0
