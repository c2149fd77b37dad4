"""Sequences that compute one token per step, kept as sums.

A member's `computed` is `base + tick`; one addition to `tick` moves them all. From the bases follow
what a step or a run of steps needs: a member takes a block in steps where `base + tick` is a
multiple of the block size, and is complete at a tick that is known when it joins.
"""

from __future__ import annotations

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
        self.members: list[Sequence] = []
        """Those that are complete first come first."""
        self._next_end = 0
        """The tick after which the first of them is."""

    def join(self, sequence: Sequence) -> None:
        """Add a running sequence that has one token to compute and at least one to generate."""
        computed = sequence.computed
        sequence.base = base = computed - self.tick
        self.size += 1
        self.context += computed + 1
        self._takes[-base % self._size_of_block] += 1
        self.newest = max(self.newest, sequence.order)
        last_tick = self.tick + sequence.room - sequence.generated
        sequence.last_tick = last_tick
        members = self.members
        if not members or members[-1].last_tick <= last_tick:
            members.append(sequence)
        else:
            members.insert(self._place_after(last_tick), sequence)
        if len(members) == 1 or last_tick < self._next_end:
            self._next_end = last_tick

    def leave(self, sequence: Sequence) -> None:
        """Take a member out; its counts are exact again, its blocks are not yet."""
        self.members.remove(sequence)
        self._remove(sequence)
        self._look_at_the_first()

    def advance(self, steps: int) -> list[Sequence]:
        """Let every member compute so many tokens; return those complete, in order of admission."""
        self.tick += steps
        self.context += self.size * steps
        members = self.members
        ended: list[Sequence] = []
        if not members or self.tick < self._next_end:
            return ended
        while members and members[0].last_tick == self.tick:
            sequence = members.pop(0)
            self._remove(sequence)
            ended.append(sequence)
        self._look_at_the_first()
        if len(ended) > 1:
            ended.sort(key=_order)
        return ended

    def until_end(self) -> int:
        """Steps until the first member is complete."""
        return self._next_end - self.tick

    def generated(self, sequence: Sequence, steps: int = 0) -> int:
        """Tokens that a member has been given, after so many steps more."""
        assert sequence.base is not None
        return sequence.base + self.tick + steps - sequence.prompt + 1

    def blocks_next(self) -> int:
        """Blocks that the next step takes."""
        return self._takes[self.tick % self._size_of_block]

    def blocks_for(self, steps: int) -> int:
        """Blocks that the next `steps` steps take."""
        size = self._size_of_block
        rounds, rest = steps // size, steps % size
        place = self.tick % size
        if 2 * rest <= size:
            return rounds * self.size + self._taken(place, rest)
        # In a whole round every member takes one: those in what is missing of it are fewer to add.
        return (rounds + 1) * self.size - self._taken((place + rest) % size, size - rest)

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

    def _taken(self, place: int, steps: int) -> int:
        """Blocks that so many steps take, from the one at this place of a round."""
        size, takes = self._size_of_block, self._takes
        blocks = 0
        for _ in range(steps):
            blocks += takes[place]
            place += 1
            if place == size:
                place = 0
        return blocks

    def _look_at_the_first(self) -> None:
        if self.members:
            self._next_end = self.members[0].last_tick

    def _place_after(self, tick: int) -> int:
        """Where members begin that are complete after this tick, and not with it."""
        low, high = 0, len(self.members)
        while low < high:
            middle = (low + high) // 2
            if self.members[middle].last_tick <= tick:
                low = middle + 1
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
