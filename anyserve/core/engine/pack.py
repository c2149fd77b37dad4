"""Sequences that compute one token per step, kept as sums.

A member's `computed` is `base + tick`; one addition to `tick` moves them all. From the bases follow
what a step or a run of steps needs: a member takes a block in steps where `base + tick` is a
multiple of the block size, and is complete at a tick that is known when it joins.
"""

from __future__ import annotations

from heapq import heappop, heappush

from anyserve.core.engine.sequence import Sequence


class Pack:
    """The decoding sequences of a batch."""

    def __init__(self, block_size: int) -> None:
        self._size_of_block = block_size
        self.tick = 0
        self.size = 0
        """Members."""
        self.context = 0
        """Tokens that the next step reads: the sum of `computed + 1`."""
        self.newest = 0
        """At least the largest `order` of a member."""
        self._takes = [0] * block_size
        """How many members take a block at ticks of this remainder."""
        self._ends: dict[int, list[Sequence]] = {}
        """Members by the tick after which they are complete."""
        self._ticks: list[int] = []
        """Heap of the keys of `_ends`, and of some that are gone."""

    def join(self, sequence: Sequence) -> None:
        """Add a running sequence that has one token to compute and at least one to generate."""
        computed = sequence.computed
        sequence.base = base = computed - self.tick
        self.size += 1
        self.context += computed + 1
        self._takes[-base % self._size_of_block] += 1
        self.newest = max(self.newest, sequence.order)
        end = self.tick + sequence.room - sequence.generated
        ending = self._ends.get(end)
        if ending is None:
            self._ends[end] = [sequence]
            heappush(self._ticks, end)
        else:
            ending.append(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Take a member out; its counts are exact again, its blocks are not yet."""
        assert sequence.base is not None
        ends_at = sequence.prompt + sequence.room - 1 - sequence.base
        ending = self._ends[ends_at]
        ending.remove(sequence)
        if not ending:
            del self._ends[ends_at]
        self._remove(sequence)

    def advance(self, steps: int) -> list[Sequence]:
        """Let every member compute so many tokens; return those complete, in order of admission."""
        self.tick += steps
        self.context += self.size * steps
        if not self._ticks or self.tick < self._ticks[0]:
            return []
        ended = self._ends.pop(self.tick, None)
        if ended is None:
            return []
        heappop(self._ticks)
        for sequence in ended:
            self._remove(sequence)
        if len(ended) > 1:
            ended.sort(key=_order)
        return ended

    def until_end(self) -> int:
        """Steps until the first member is complete."""
        ticks = self._ticks
        while ticks[0] not in self._ends:
            heappop(ticks)
        return ticks[0] - self.tick

    def generated(self, sequence: Sequence, steps: int = 0) -> int:
        """Tokens that a member has been given, after so many steps more."""
        assert sequence.base is not None
        return sequence.base + self.tick + steps - sequence.prompt + 1

    def blocks_next(self) -> int:
        """Blocks that the next step takes."""
        return self._takes[self.tick % self._size_of_block]

    def blocks_for(self, steps: int) -> int:
        """Blocks that the next `steps` steps take."""
        size, takes = self._size_of_block, self._takes
        blocks = (steps // size) * self.size
        place = self.tick % size
        for _ in range(steps % size):
            blocks += takes[place]
            place += 1
            if place == size:
                place = 0
        return blocks

    def affordable(self, steps: int, free: int) -> int:
        """How many of the next `steps` steps can be taken with so many free blocks."""
        if (steps // self._size_of_block + 1) * self.size <= free or self.blocks_for(steps) <= free:
            return steps
        low, high = 0, steps  # affordable, not affordable
        while high - low > 1:
            middle = (low + high) // 2
            if self.blocks_for(middle) <= free:
                low = middle
            else:
                high = middle
        return low

    def _remove(self, sequence: Sequence) -> None:
        assert sequence.base is not None
        base = sequence.base
        computed = base + self.tick
        self.size -= 1
        if not self.size:
            self.newest = 0
        self.context -= computed + 1
        self._takes[-base % self._size_of_block] -= 1
        sequence.base = None
        sequence.computed = computed
        sequence.generated = computed - sequence.prompt + 1


def _order(sequence: Sequence) -> int:
    return sequence.order
