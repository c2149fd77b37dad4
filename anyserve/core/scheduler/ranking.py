"""Members of a pool in the order of one of their numbers: a heap in which each knows its place.

Numbers change with every assignment and every credit. Moving a member costs a few comparisons of
numbers; `heapq` would keep an entry for every change, and compare tuples of objects.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from anyserve.core.scheduler.state import ReplicaView

_HEAD: Final = 7
"""So many bytes are a small number to a compiled program."""


class Filter:
    """Whether a member may take the request at hand."""

    def passes(self, view: ReplicaView) -> bool:
        """Whether it may."""
        raise NotImplementedError


class Where(Filter):
    """Asks a function."""

    def __init__(self, holds: Callable[[ReplicaView], bool]) -> None:
        self._holds = holds

    def passes(self, view: ReplicaView) -> bool:
        """See `Filter`."""
        return self._holds(view)


class _Place:
    """A member, its number, and where in the heap it stands."""

    __slots__ = ("at", "head", "id", "number", "view")

    def __init__(self, view: ReplicaView, number: float, at: int) -> None:
        self.id = view.id
        self.head = head_of(view.id)
        self.view = view
        self.number = number
        self.at = at

    def goes_before(self, other: _Place) -> bool:
        """Whether its number is smaller, or its id where the numbers are equal."""
        if self.number == other.number:
            if self.head == other.head:
                return self.id < other.id
            return self.head < other.head
        return self.number < other.number


def head_of(text: str) -> int:
    """The beginning of a text as a number. Where two heads differ they are in the order of their
    texts, and to compare them takes no look at these."""
    return int.from_bytes(text.encode()[:_HEAD].ljust(_HEAD, b"\0"), "big")


class Ranking:
    """Members by `number_of`, the smallest first."""

    def __init__(self) -> None:
        self._heap: list[_Place] = []
        self._places: dict[str, _Place] = {}

    def number_of(self, view: ReplicaView) -> float:
        """What members are ordered by."""
        raise NotImplementedError

    def put(self, view: ReplicaView) -> None:
        """Add a member, or note that its number may have changed."""
        number = self.number_of(view)
        place = self._places.get(view.id)
        if place is None:
            place = self._places[view.id] = _Place(view, number, len(self._heap))
            self._heap.append(place)
            self._rise(place)
            return
        place.view = view
        before, place.number = place.number, number
        if number < before:
            self._rise(place)
        elif number > before:
            self._sink(place)

    def drop(self, replica: str) -> None:
        """Remove a member; absent is fine."""
        place = self._places.pop(replica, None)
        if place is None:
            return
        last = self._heap.pop()
        if last is not place:
            last.at = place.at
            self._heap[last.at] = last
            self._rise(last)
            self._sink(last)

    def first(self, test: Filter) -> ReplicaView | None:
        """The first member that passes: O(log N) where few before it do not."""
        if not self._heap:
            return None
        view = self._heap[0].view
        return view if test.passes(view) else self._first_below(test)

    def _first_below(self, test: Filter) -> ReplicaView | None:
        """Look at those below the first, each only once all that go before it did not pass."""
        heap = self._heap
        ahead: list[tuple[float, str, int]] = []
        above = 0
        while True:
            for at in range(2 * above + 1, min(2 * above + 3, len(heap))):
                heappush(ahead, (heap[at].number, heap[at].id, at))
            if not ahead:
                return None
            above = heappop(ahead)[2]
            if test.passes(heap[above].view):
                return heap[above].view

    def _rise(self, place: _Place) -> None:
        """Let it change places with those above that it goes before."""
        heap, at = self._heap, place.at
        while at > 0:
            above = (at - 1) >> 1
            other = heap[above]
            if not place.goes_before(other):
                break
            heap[at] = other
            other.at = at
            at = above
        heap[at] = place
        place.at = at

    def _sink(self, place: _Place) -> None:
        """Let it change places with those below that go before it."""
        heap, at = self._heap, place.at
        size, below = len(heap), 2 * at + 1
        while below < size:
            other = heap[below]
            if below + 1 < size and heap[below + 1].goes_before(other):
                below += 1
                other = heap[below]
            if not other.goes_before(place):
                break
            heap[at] = other
            other.at = at
            at, below = below, 2 * below + 1
        heap[at] = place
        place.at = at


class ByFill(Ranking):
    """The one with the smallest share of its slots in use, entry queue counted."""

    def number_of(self, view: ReplicaView) -> float:
        """See `Ranking`."""
        return view.fill


class ByCredit(Ranking):
    """The one with the fewest free slots."""

    def number_of(self, view: ReplicaView) -> float:
        """See `Ranking`."""
        return float(view.credit)


class ByTurn(Ranking):
    """The one that was not chosen for the longest time."""

    def number_of(self, view: ReplicaView) -> float:
        """See `Ranking`."""
        return float(view.turn)
