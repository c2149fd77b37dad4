"""The queue before the batch: first come, first served, or by priority."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from anyserve.core.engine.sequence import Sequence

_Entry = tuple[tuple[int, int, int], int, Sequence]


class WaitingQueue:
    """Sequences that wait for admission, in the order of the policy.

    First come, first served: preempted ones go to the front. By priority: all by (priority,
    arrival, number), preempted ones as well. An aborted one is passed over when its turn comes.
    """

    def __init__(self, *, priorities: bool) -> None:
        self._priorities = priorities
        self._line: deque[Sequence] = deque()
        self._heap: list[_Entry] = []
        self._pushed = 0
        self.length = 0
        """How many wait."""

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait."""
        self.length += 1
        if self._priorities:
            self._push(sequence)
        else:
            self._line.append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Let a preempted sequence wait again."""
        self.length += 1
        if self._priorities:
            self._push(sequence)
        else:
            self._line.appendleft(sequence)

    def head(self) -> Sequence:
        """Who is next; there must be somebody."""
        if self._priorities:
            heap = self._heap
            while heap[0][2].gone:
                heappop(heap)
            return heap[0][2]
        line = self._line
        while line[0].gone:
            line.popleft()
        return line[0]

    def pop(self) -> None:
        """Take the head out."""
        self.length -= 1
        if self._priorities:
            heappop(self._heap)
        else:
            self._line.popleft()

    def discard(self, sequence: Sequence) -> None:
        """One that waits is `gone`."""
        assert sequence.gone
        self.length -= 1
        if not self.length:
            self._heap.clear()
            self._line.clear()
        elif len(self._heap) > 2 * self.length + 64:  # mostly gone ones
            self._heap = [entry for entry in self._heap if not entry[2].gone]
            heapify(self._heap)
        elif len(self._line) > 2 * self.length + 64:
            self._line = deque(one for one in self._line if not one.gone)

    def _push(self, sequence: Sequence) -> None:
        self._pushed += 1
        rank = (sequence.priority, sequence.arrival, sequence.number)
        heappush(self._heap, (rank, self._pushed, sequence))
