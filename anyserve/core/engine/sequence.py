"""A stream of tokens in an engine: a prompt that is read, then tokens that are generated."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyserve.core.engine.cache import Block, Run
    from anyserve.core.engine.keys import Segment


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
    """The texts at its beginning that other sequences may have too. What follows is taken to be
    nobody else's, and is never looked up. May reach into what is generated, where the driver knows
    that. Empty: nothing is shared."""
    keys: Items[int] = ()
    """Names of its first blocks (`keys.py`), where others may have the same ones: made of `shared`
    by the engine, unless the driver gives them. Equal keys are equal tokens from the beginning."""

    # State. It belongs to the engine.
    generated: int = 0
    """Tokens generated. Lags behind while it decodes: ask `EngineModel.tokens_at`."""
    computed: int = 0
    """Tokens whose keys and values are in the cache. Lags likewise."""
    preemptions: int = 0
    order: int = 0
    """Place in the batch: the number of its admission."""
    base: int | None = None
    """While it decodes in step with the others: `computed` minus the tick of the batch."""
    placeholders: int = 0
    """Tokens of steps in flight, which the next step is planned with (asynchronous scheduling)."""
    in_flight: int = 0
    """Tokens that steps in flight compute."""
    stale: int = 0
    """Those of them that were in flight when it was preempted."""
    gone: bool = False
    """Finished or aborted."""
    blocks: Items[Block] = ()
    """Its first blocks that have keys and are cached."""
    own: int = 0
    """Its other blocks, cached or not. Lags likewise."""
    cached: int = 0
    """Blocks that are cached, those in `blocks` included. Lags likewise."""
    found: int = 0
    """Blocks that were in the cache when it was admitted."""
    runs: Items[Run] = ()
    """Blocks that it left in the cache when it was preempted."""
    versions: Mapping[int, int] | None = None
    """Blocks that it found in `runs` and that are not the first of their content, by place."""

    @property
    def rank(self) -> tuple[int, int, int]:
        """Lower goes first."""
        return (self.priority, self.arrival, self.number)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to compute."""
        return self.generated >= self.room and self.computed >= self.prompt

    @property
    def total(self) -> int:
        """Tokens that exist now."""
        return self.prompt + self.generated
