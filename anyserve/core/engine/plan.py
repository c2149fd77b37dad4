"""What an engine computes next."""

from __future__ import annotations

from anyserve.core.engine.sequence import NOBODY, Sequence


class StepPlan:
    """What the next step computes, or the next `steps` ones if only the pack decodes in them."""

    __slots__ = (
        "admitted", "attention", "context", "decodes", "packed", "preempted", "prefill_tokens",
        "prefills", "reserved", "sampling", "steps",
    )  # fmt: skip

    def __init__(self) -> None:
        self.steps = 1
        self.packed = False
        """Whether the pack takes part, as a whole."""
        self.decodes = NOBODY
        """Those that decode outside the pack."""
        self.context = 0
        """Tokens that these read, their own new one included."""
        self.prefills: list[tuple[Sequence, int]] = []
        """(sequence, tokens) of prompts, and of what a preempted sequence computes again."""
        self.prefill_tokens = 0
        self.attention = 0
        """Sum of p * (2 * s + p) over chunks of p tokens after s computed ones: twice the pairs of
        tokens that attend to each other."""
        self.sampling: list[Sequence] = []
        """Those outside the pack that are given a token at the end, or are read to theirs."""
        self.admitted: list[Sequence] = []
        self.preempted = NOBODY
        self.reserved = 0
        """Blocks that the pack was given for its first step."""

    @property
    def empty(self) -> bool:
        """Whether nobody computes anything."""
        return not (self.packed or self.prefills or self.decodes)

    def decode(self, sequence: Sequence) -> None:
        """Add one outside the pack that decodes, before that is counted as computed."""
        self.decodes = self.decodes or []
        self.decodes.append(sequence)
        self.context += sequence.computed + 1

    def preempt(self, sequence: Sequence) -> None:
        """Add one that loses its place."""
        self.preempted = self.preempted or []
        self.preempted.append(sequence)

    def chunk(self, sequence: Sequence, tokens: int) -> None:
        """Add a part of a prompt, before it is counted as computed."""
        self.prefills.append((sequence, tokens))
        self.prefill_tokens += tokens
        self.attention += tokens * (2 * sequence.computed + tokens)
