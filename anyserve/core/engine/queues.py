"""The queue before the batch: first come, first served, or by priority."""

from __future__ import annotations

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
        self._line: list[Sequence] = []
        """Those that came in the order in which they go: nearly all, and few at a time."""
        self._heap: list[_Entry] = []
        """By priority: all others."""
        self._pushed = 0
        self.length = 0
        """How many wait."""

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait."""
        self.length += 1
        line = self._line
        if self._priorities and line and sequence.rank < line[-1].rank:
            self._push(sequence)
        else:
            line.append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Let a preempted sequence wait again."""
        self.length += 1
        if self._priorities:
            self._push(sequence)
        else:
            self._line.insert(0, sequence)

    def head(self) -> Sequence:
        """Who is next; there must be somebody."""
        line, heap = self._line, self._heap
        while line and line[0].gone:
            line.pop(0)
        while heap and heap[0][2].gone:
            heappop(heap)
        return heap[0][2] if self._heap_goes_first() else line[0]

    def pop(self) -> None:
        """Take out what `head` found."""
        self.length -= 1
        if self._heap_goes_first():
            heappop(self._heap)
        else:
            self._line.pop(0)

    def sequences(self) -> list[Sequence]:
        """All that wait, in no order."""
        everybody = [*self._line, *(entry[2] for entry in self._heap)]
        return [sequence for sequence in everybody if not sequence.gone]

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
            self._line = [one for one in self._line if not one.gone]

    def _heap_goes_first(self) -> bool:
        heap, line = self._heap, self._line
        return bool(heap) and (not line or heap[0][0] < line[0].rank)

    def _push(self, sequence: Sequence) -> None:
        self._pushed += 1
        heappush(self._heap, (sequence.rank, self._pushed, sequence))
