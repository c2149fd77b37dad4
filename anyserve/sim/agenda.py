"""What is to happen at one time or another, earliest first: a heap of records.

`heapq` knows nothing of what it compares; compiled, this heap reads times where they lie.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """Entries in any order; the first to be due is at hand."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[Entry] = []

    @property
    def first(self) -> Entry | None:
        """The entry that is due before all others."""
        return self._heap[0] if self._heap else None

    def put(self, entry: Entry) -> None:
        """Add an entry."""
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

    def take(self) -> Entry:
        """Remove the first entry. There must be one."""
        heap = self._heap
        last = heap.pop()
        if not heap:
            return last
        first = heap[0]
        self._settle(last)
        return first

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
