"""How the requests of a stream come: at a rate, from so many users, or as a trace says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from anyserve.workload.schema.types import Duration, PositiveDuration, Section


class Burst(Section):
    """Bursty arrivals: all requests come while the stream is on, at random; the mean rate holds."""

    on: PositiveDuration
    """Mean length of a burst."""
    off: PositiveDuration
    """Mean length of the silence between two."""


class Sessions(Section):
    """Conversations: each arrival begins one, and each turn's prompt holds all turns before it."""

    turns: int = Field(ge=1, le=1000)
    """Requests of one session."""
    think: Duration = 0
    """From the end of an answer to the next turn."""


class Trace(Section):
    """Requests of a file: their times and lengths."""

    file: str = Field(min_length=1, max_length=1024)
    """The file, beside the scenario's if its path is relative; or the directory of a run."""
    format: Literal["azure", "mooncake", "burstgpt", "run"] | None = None
    """What the file is; by default that follows from its name and its first line."""
    speed: float = Field(default=1.0, gt=0, le=10_000)
    """Plays the trace so many times as fast."""
    lengths: float = Field(default=1.0, gt=0, le=100)
    """Multiplies the lengths of prompts and answers, for models smaller than the trace's."""
    start: Duration = 0
    """Leaves out what comes before this time of the trace."""
    limit: int | None = Field(default=None, ge=1, le=10_000_000)
    """Takes only so many requests."""
