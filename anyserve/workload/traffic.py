"""The traffic plan as data: what the player and the simulator read. No scenario file is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

SCHEDULER_ENTRY: Final = "scheduler"
_MIX: Final = 0x100000001B3
_MASK: Final = (1 << 64) - 1

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
    after: int | None = None
    """It is sent once this request has ended, and not at `at_ns`, which is only a bound from below:
    the next turn of a session, or a closed-loop user's next request."""
    think_ns: int = 0
    """From that end until it is sent."""
    answer: int = 0
    """Names the text of its answer, where a later turn's prompt holds it; 0: none does."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        tokens = 0
        for segment in self.segments:
            tokens += segment[1]
        return tokens

    @property
    def affinity(self) -> str | None:
        """Names the beginnings that other prompts may share, the shortest first, joined by `/`.

        They end where one, two, four, eight ... of its texts end, and where all do. None where
        nothing of it is shared.
        """
        count = len(self.segments)
        if count == 1 and not self.answer:
            return None
        depths = [1 << power for power in range(count.bit_length()) if 1 << power < count]
        if self.answer or count == 1:
            depths.append(count)
        names, digest, depth = [], 0, 0
        for wanted in depths:
            for name, length in self.segments[depth:wanted]:
                digest = (digest * _MIX + name + length) & _MASK
            depth = wanted
            names.append(f"{digest:x}")
        return "/".join(names)


class TrafficPlan(msgspec.Struct, frozen=True):
    """All requests, sorted by time. JSON both ways with msgspec."""

    seed: int
    phases: tuple[PlannedPhase, ...]
    requests: tuple[PlannedRequest, ...]

    @property
    def duration_ns(self) -> int:
        """From the start of traffic to the end of its last phase."""
        return self.phases[-1].end_ns if self.phases else 0
