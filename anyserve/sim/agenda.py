"""What is to happen at one time or another, earliest first: a heap of records.

`heapq` knows nothing of what it compares; compiled, this heap reads times where they lie. It holds
what is due soon only, and so stays in the processor's cache: what comes later is kept unsorted, by
spans of time.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Action = Callable[[Any], None]


class Doer:
    """Who does something when it is due."""

    def do(self, what: Any) -> None:
        """It is due."""
        raise NotImplementedError


class Call(Doer):
    """Calls a function with what is due."""

    def __init__(self, action: Action) -> None:
        self._action = action

    def do(self, what: Any) -> None:
        """See `Doer`."""
        self._action(what)


class Entry:
    """Something to be done: when, in which place among what is due then, by whom, and what."""

    __slots__ = ("doer", "place", "time_ns", "what")

    def __init__(self, time_ns: int, place: int, doer: Doer, what: Any) -> None:
        self.time_ns = time_ns
        self.place = place
        self.doer = doer
        self.what = what

    def goes_before(self, other: Entry) -> bool:
        """Whether it is due earlier, or has the lower place where both are due at once."""
        if self.time_ns == other.time_ns:
            return self.place < other.place
        return self.time_ns < other.time_ns


class Agenda:
    """Entries in any order; the first to be due is at hand.

    Args:
        span_bits: a span is 2 to this power of nanoseconds. Says how fast it is, and nothing else;
            about fifty entries in a span are good.
    """

    __slots__ = ("_edge_ns", "_heap", "_later", "_span_bits", "_spans")

    def __init__(self, span_bits: int = 26) -> None:
        self._span_bits = span_bits
        self._heap: list[Entry] = []
        """What is due before `_edge_ns`; empty only where nothing is planned at all."""
        self._edge_ns = 0
        self._later: dict[int, list[Entry]] = {}
        """All else, by the number of its span."""
        self._spans: list[int] = []
        """Heap of these numbers."""

    @property
    def first(self) -> Entry | None:
        """The entry that is due before all others."""
        return self._heap[0] if self._heap else None

    def put(self, entry: Entry) -> None:
        """Add an entry."""
        if entry.time_ns < self._edge_ns:
            self._push(entry)
            return
        span = entry.time_ns >> self._span_bits
        entries = self._later.get(span)
        if entries is None:
            self._later[span] = [entry]
            heappush(self._spans, span)
        else:
            entries.append(entry)
        if not self._heap:
            self._go_on()

    def take(self) -> Entry:
        """Remove the first entry. There must be one."""
        heap = self._heap
        last = heap.pop()
        if heap:
            first = heap[0]
            self._settle(last)
            return first
        if self._spans:
            self._go_on()
        return last

    def _go_on(self) -> None:
        """Take the next span into the heap."""
        span = heappop(self._spans)
        self._edge_ns = (span + 1) << self._span_bits
        for entry in self._later.pop(span):
            self._push(entry)

    def _push(self, entry: Entry) -> None:
        heap = self._heap
        heap.append(entry)
        place = len(heap) - 1
        while place > 0:
            above = (place - 1) >> 1
            parent = heap[above]
            if not entry.goes_before(parent):
                break
            heap[place] = parent
            place = above
        heap[place] = entry

    def _settle(self, entry: Entry) -> None:
        """Give an entry the place of the first one: those that go before it move up."""
        heap = self._heap
        size = len(heap)
        place, below = 0, 1
        while below < size:
            child = heap[below]
            if below + 1 < size and heap[below + 1].goes_before(child):
                below += 1
                child = heap[below]
            if not child.goes_before(entry):
                break
            heap[place] = child
            place = below
            below = 2 * place + 1
        heap[place] = entry


class Line:
    """Entries that are due in the order in which they come: a ring that grows."""

    __slots__ = ("_begin", "_length", "_ring")

    def __init__(self) -> None:
        self._ring: list[Entry | None] = [None] * 64
        """Its length is a power of two."""
        self._begin = 0
        self._length = 0

    @property
    def first(self) -> Entry | None:
        """The entry that came first."""
        return self._ring[self._begin]

    def put(self, entry: Entry) -> None:
        """Add an entry at the end."""
        if self._length == len(self._ring):
            self._ring = [*self._ring[self._begin :], *self._ring[: self._begin]]
            self._ring += [None] * self._length
            self._begin = 0
        self._ring[(self._begin + self._length) & (len(self._ring) - 1)] = entry
        self._length += 1

    def drop_first(self) -> None:
        """Remove the first entry. There must be one."""
        self._ring[self._begin] = None
        self._begin = (self._begin + 1) & (len(self._ring) - 1)
        self._length -= 1

    def clear(self) -> None:
        """Remove all."""
        self._ring = [None] * 64
        self._begin = self._length = 0
