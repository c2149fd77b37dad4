"""A stream of tokens in an engine: a prompt that is read, then tokens that are generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Segment = tuple[int, int]
"""(name of a text, number of its first tokens). The same name is the same text everywhere."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One stream of tokens in the engine. A request with `n` choices is `n` of them."""

    owner: Any = None
    """Whatever the driver finds its request by; the engine does not look at it."""
    prompt: int
    """Tokens given, at least 1; those of earlier attempts included."""
    room: int
    """Tokens to generate, exactly so many; 0 for a sequence that is only read (embedding). The
    driver bounds it: `min(max_tokens, max_model_len - prompt)`."""
    priority: int = 0
    """Lower goes first where the engine's policy is `priority`; else without effect."""
    arrival: int = 0
    """When it came, on any clock that all sequences share; decides among equal priorities."""
    number: int = 0
    """Decides among equal arrivals, as request ids do in vLLM."""
    shared: tuple[Segment, ...] = ()
    """The beginning of the prompt that other sequences may have too. What follows, up to `prompt`,
    is taken to be nobody else's, and is never looked up. Empty: nothing is shared."""

    # State. Of the engine alone.
    generated: int = 0
    """Tokens generated so far; exact between stretches."""
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    preemptions: int = 0

    @property
    def rank(self) -> tuple[int, int, int]:
        """Lower goes first."""
        return (self.priority, self.arrival, self.number)

    @property
    def total(self) -> int:
        """Tokens that exist now."""
        return self.prompt + self.generated

    @property
    def finished(self) -> bool:
        """Whether nothing is left to compute."""
        return self.generated >= self.room and self.computed >= self.prompt
