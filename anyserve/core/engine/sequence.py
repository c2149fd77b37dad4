"""A stream of tokens in an engine: a prompt that is read, then tokens that are generated."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from anyserve.core.engine.cache import Block, Run
    from anyserve.core.engine.keys import Segment


class Sequence:
    """One stream of tokens in the engine. A request with `n` choices is `n` of them.

    Args:
        prompt: tokens given, at least 1; those of earlier attempts included.
        room: tokens to generate, exactly so many; 0 for a sequence that is only read (embedding).
            The driver bounds it: `min(max_tokens, max_model_len - prompt)`.
        owner: whatever the driver finds its request by; the engine does not look at it.
        priority: lower goes first where the engine's policy is `priority`; else without effect.
        arrival: when it came, on any clock that all sequences share; decides among equal
            priorities.
        number: decides among equal arrivals, as request ids do in vLLM.
        shared: the texts at its beginning that other sequences may have too. What follows is taken
            to be nobody else's, and is never looked up. May reach into what is generated, where the
            driver knows that. Empty: nothing is shared.
        keys: names of its first blocks (`keys.py`), where others may have the same ones: made of
            `shared` by the engine, unless the driver gives them. Equal keys are equal tokens from
            the beginning.
    """

    __slots__ = (
        "arrival", "base", "blocks", "cached", "computed", "found", "generated", "gone",
        "in_flight", "keys", "last_tick", "number", "order", "own", "owner", "placed",
        "placeholders", "preemptions", "priority", "prompt", "room", "runs", "shared", "stale",
        "versions",
    )  # fmt: skip

    def __init__(
        self,
        *,
        prompt: int,
        room: int,
        owner: Any = None,
        priority: int = 0,
        arrival: int = 0,
        number: int = 0,
        shared: tuple[Segment, ...] = (),
        keys: Items[int] = (),
    ) -> None:
        # What its tokens ask for comes first: compiled, fields lie in this order. What is not an
        # argument is the engine's.
        self.last_tick = 0
        """While it decodes in step with the others: the tick of the batch after which it is
        complete."""
        self.base: int | None = None
        """While it does: `computed` minus the tick of the batch."""
        self.prompt = prompt
        self.computed = 0
        """Tokens whose keys and values are in the cache. Lags while it decodes."""
        self.generated = 0
        """Tokens generated. Lags likewise: ask `EngineModel.tokens_at`."""
        self.room = room
        self.owner = owner
        self.order = 0
        """Place in the batch: the number of its admission."""
        self.gone = False
        """Finished or aborted."""
        self.placed = False
        """It has a place in the batch."""
        self.own = 0
        """Its blocks beside `blocks`, cached or not. Lags likewise."""
        self.cached = 0
        """Blocks that are cached, those in `blocks` included. Lags likewise."""
        self.blocks: Items[Block] = ()
        """Its first blocks that have keys and are cached."""
        self.keys = keys
        self.shared = shared
        self.priority = priority
        self.arrival = arrival
        self.number = number
        self.preemptions = 0
        self.placeholders = 0
        """Tokens of steps in flight, which the next step is planned with (asynchronous
        scheduling)."""
        self.in_flight = 0
        """Tokens that steps in flight compute."""
        self.stale = 0
        """Those of them that were in flight when it was preempted."""
        self.found = 0
        """Blocks that were in the cache when it was admitted."""
        self.runs: Items[Run] = ()
        """Blocks that it left in the cache when it was preempted."""
        self.versions: Mapping[int, int] | None = None
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


NOBODY: Final[list[Sequence]] = []
"""No sequences. Never written to."""
