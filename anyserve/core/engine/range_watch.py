"""Where an engine does what its formula was not measured for."""

from __future__ import annotations

from anyserve.core.engine.profile import MeasuredRanges, Range
from anyserve.core.engine.step_time import StepWork


class RangeWatch:
    """Notes where steps go beyond what was measured. One serves many engines of a kind."""

    def __init__(self, ranges: MeasuredRanges) -> None:
        self._ranges = ranges
        self.seen: dict[str, int] = {}
        """The most that was seen of each thing that went beyond, by its name."""
        self._prefill_tokens = _most(ranges.prefill_tokens)
        self._decodes = _most(ranges.decodes)
        self._context = _most(ranges.context)

    def look(self, prefill_tokens: int, decodes: int, context: int) -> None:
        """Take note of a step."""
        within = prefill_tokens <= self._prefill_tokens and decodes <= self._decodes
        if not within or context > self._context:
            work = StepWork(prefill_tokens=prefill_tokens, decodes=decodes, context=context)
            for name in self._ranges.beyond(work):
                self.seen[name] = max(self.seen.get(name, 0), getattr(work, name))

    def said(self) -> list[str]:
        """In words, one line for each thing."""
        lines = []
        for name, value in sorted(self.seen.items()):
            measured = getattr(self._ranges, name)
            lines.append(f"{name.replace('_', ' ')} up to {value}, measured up to {measured.high}")
        return lines


def _most(known: Range | None) -> int:
    return 1 << 60 if known is None else known.high
