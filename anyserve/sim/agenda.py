"""What is to happen at one time or another, earliest first: a heap of records.

`heapq` knows nothing of what it compares; compiled, this heap reads times where they lie. It holds
what is due soon only, and so stays in the processor's cache: what comes later is kept unsorted, by
spans of time.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

Action = Callable[[Any], None]
_FEW: Final = 64
"""So many entries that are done with may stay in a line."""


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


class _Nobody(Doer):
    """Does nothing."""

    def do(self, what: Any) -> None:
        """See `Doer`."""


_NOBODY: Final = _Nobody()


class Entry:
    """Something to be done: when, in which place among what is due then, by whom, and what."""

    __slots__ = ("doer", "place", "time_ns", "what")

    def __init__(self, time_ns: int, place: int, doer: Doer, what: Any) -> None:
        self.time_ns = time_ns
        self.place = place
        self.doer = doer
        self.what = what

    def withdraw(self) -> None:
        """Nothing is to be done then. Who keeps an entry and is its doer has to let go of it when
        it was done: compiled, Python's collector does not know of entries."""
        self.doer = _NOBODY
        self.what = None

    @property
    def withdrawn(self) -> bool:
        """Whether nothing is to be done."""
        return self.doer is _NOBODY

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

    __slots__ = ("_edge_ns", "_heap", "_later", "_span_bits", "_spans", "_taken")

    def __init__(self, span_bits: int = 26) -> None:
        self._span_bits = span_bits
        self._heap: list[Entry] = []
        """What is due before `_edge_ns`; empty only where nothing is planned at all."""
        self._taken = False
        """Whether the first of the heap is gone. The next one that is put in has its place: whoever
        was due mostly plans something."""
        self._edge_ns = 0
        self._later: dict[int, list[Entry]] = {}
        """All else, by the number of its span."""
        self._spans: list[int] = []
        """Heap of these numbers."""

    @property
    def first(self) -> Entry | None:
        """The entry that is due before all others."""
        if self._taken:
            self._close_up()
        return self._heap[0] if self._heap else None

    def put(self, entry: Entry) -> None:
        """Add an entry."""
        if entry.time_ns < self._edge_ns:
            if self._taken:
                self._taken = False
                self._settle(entry)
            else:
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
        if self._taken:
            self._close_up()
        self._taken = True
        return self._heap[0]

    def clear(self) -> None:
        """Withdraw all, and forget it."""
        for entries in (self._heap, *self._later.values()):
            for entry in entries:
                entry.withdraw()
        self._taken = False
        self._heap.clear()
        self._later.clear()
        self._spans.clear()

    def _close_up(self) -> None:
        """Nothing came in the place of what was taken."""
        self._taken = False
        last = self._heap.pop()
        if self._heap:
            self._settle(last)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next span in which anything is to be done into the heap."""
        while self._spans and not self._heap:
            span = heappop(self._spans)
            self._edge_ns = (span + 1) << self._span_bits
            for entry in self._later.pop(span):
                if not entry.withdrawn:
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
    """Entries that are due in the order in which they come."""

    __slots__ = ("_entries", "_passed")

    def __init__(self) -> None:
        self._entries: list[Entry | None] = []
        self._passed = 0
        """How many at the beginning are done with."""

    @property
    def first(self) -> Entry | None:
        """The entry that came first."""
        return self._entries[self._passed] if self._passed < len(self._entries) else None

    def put(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._entries.append(entry)

    def drop_first(self) -> None:
        """Remove the first entry. There must be one."""
        self._entries[self._passed] = None
        self._passed += 1
        if self._passed > _FEW and 2 * self._passed > len(self._entries):
            del self._entries[: self._passed]
            self._passed = 0

    def clear(self) -> None:
        """Remove all."""
        self._entries = []
        self._passed = 0
