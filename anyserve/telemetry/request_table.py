"""What a summary needs of each request, kept small: a row of numbers and of words that many share.

A run of a million requests is counted in some 90 bytes each. A request keeps its row when it has
ended, for what other processes say of it may be read later.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from struct import Struct
from typing import Any, Final, NamedTuple, TypeVar

from anyserve.core.events import RequestDelegated, RequestOffered, RequestOutcome
from anyserve.core.origin.pending import add_gaps
from anyserve.core.seen import number_after

NEVER: Final = -(1 << 63)
"""For a time that there is none of."""
COMPLETED: Final = "completed"
TIMES: Final = ("ttft", "tpot", "e2e", "queue")
_SPARSE: Final = 1 << 16
"""So far beyond the last one a number still has a place in the array of its origin."""
_AHEAD: Final = 1024
"""So many places an array grows at a time."""
_DIGITS: Final = 18
_FRESH: Final = 6 * 512
"""So many numbers of new rows wait to be put into the columns together."""
_Value = TypeVar("_Value")


class Delegated(NamedTuple):
    """A delegation that the scheduler took into account."""

    attempt: int
    from_capability: str
    to_capability: str
    reason: str


class Way(NamedTuple):
    """What many requests have in common."""

    capability: str
    """As asked."""
    outcome: str | None
    """None while it has none."""
    code: str | None
    assigned: bool
    """Whether the scheduler bound it or a replica took it in."""
    delegated: tuple[Delegated, ...]


Routed = tuple[int, str, str]
"""Attempt, capability, replica."""
Ended = tuple[str, str | None, str | None, int, int, int]
"""Outcome, code, replica that served it, tokens, time of the first one, time of the outcome."""
_NO_GAPS: Final[Mapping[int, int]] = {}


class Heard:
    """What was heard of a request that has no outcome yet, or of which more is said afterwards."""

    __slots__ = (
        "assigned", "capability", "delegated", "ended", "intended_ns", "number", "prompt_tokens",
        "queue_ns", "routed", "row", "rows",
    )  # fmt: skip

    def __init__(self) -> None:
        self.row = -1
        """In the table; -1: none yet."""
        self.rows: array[int] | None = None
        """Where its origin's rows are, and its place among them."""
        self.number = 0
        self.capability: str | None = None
        """As asked; None until its `offered` was seen."""
        self.prompt_tokens = self.intended_ns = self.queue_ns = 0
        self.assigned = False
        self.delegated: tuple[Delegated, ...] = ()
        self.routed: tuple[Routed, ...] = ()
        self.ended: Ended | None = None

    def replica_of(self, attempt: int) -> str | None:
        """The replica this attempt was bound to, where the scheduler bound it."""
        return next((name for number, _, name in self.routed if number == attempt), None)

    def delegate(self, event: RequestDelegated) -> None:
        """It was delegated; said twice, it counts once."""
        if all(event.attempt != said.attempt for said in self.delegated):
            one = (event.attempt, event.from_capability, event.to_capability, event.reason)
            self.delegated = (*self.delegated, Delegated(*one))


class RequestTable:
    """A row for each request that was offered, once it has its outcome or `groups` is called."""

    def __init__(self) -> None:
        self.way: list[Way] = []
        self.served_by: list[str | None] = []
        self.routed: list[tuple[Routed, ...]] = []
        # Columns of numbers: complete once `groups` was called.
        self.prompt_tokens = array("q")
        self.n_tokens = array("q")
        self.queue_ns = array("q")
        self.intended_ns = array("q")
        self.first_ns = array("q")
        self.end_ns = array("q")
        self._fresh: list[int] = []
        """Those of the newest rows, row by row: an array takes many in little more time than one.
        """
        self.itl: dict[str, dict[int, int]] = {}
        """Gaps between tokens of completed requests, by capability asked."""
        self._early: dict[str, Mapping[int, int]] = {}
        """Gaps of requests that were not heard to be offered yet."""
        self.open: dict[str, Heard] = {}
        """What was heard of requests without an outcome, by id; `heard` where an id is not here."""
        self._places = _Places()
        self._shared: dict[Any, Any] = {}

    def heard(self, request_id: str) -> Heard:
        """This request, to be changed: more is heard of it."""
        one = self.open.get(request_id)
        if one is None:
            one = self.open[request_id] = Heard()
            row = self._places.find(request_id, one)
            if row >= 0:
                self._read(row, one)
        return one

    def offer(self, event: RequestOffered) -> None:
        """A client asked for it."""
        one = self.heard(event.id)
        one.capability = event.capability
        one.prompt_tokens = event.prompt_tokens
        one.intended_ns = event.intended_ns
        if one.ended is not None:
            self._add_gaps(event.capability, self._early.pop(event.id, {}))
            self._write(event.id, one, event.capability)
            del self.open[event.id]

    def end(self, event: RequestOutcome) -> None:
        """It has its outcome; only the first one counts."""
        one = self.open.get(event.id) or self.heard(event.id)
        if one.ended is not None:
            return
        first_ns = event.first_ns
        one.ended = (
            event.outcome, event.code, event.served_by, event.n_tokens,
            NEVER if first_ns is None else first_ns, event.end_ns,
        )  # fmt: skip
        capability = one.capability
        gaps = event.itl_ns if event.outcome == COMPLETED else _NO_GAPS
        if capability is None:
            self._early[event.id] = gaps
            return
        if gaps:
            self._add_gaps(capability, gaps)
        self._write(event.id, one, capability)
        del self.open[event.id]

    def groups(self) -> dict[str, Group]:
        """Every request whose `offered` was seen, by the capability that it asked for."""
        for request_id, one in self.open.items():
            if one.capability is not None:
                self._write(request_id, one, one.capability)
        self._settle()
        names = sorted({way.capability for way in set(self.way)})
        rows: dict[str, array[int]] = {name: array("q") for name in names}
        for row, way in enumerate(self.way):
            rows[way.capability].append(row)
        return {name: Group(self, some) for name, some in rows.items()}

    def whole(self, groups: Mapping[str, Group]) -> Group:
        """These groups, which are all, as one."""
        if len(groups) == 1:
            return next(iter(groups.values()))
        return Group(self, range(len(self.way)))

    def target_of(self, row: int, said: Delegated) -> str:
        """The capability it was routed to after this delegation."""
        later = [routed for routed in self.routed[row] if routed[0] > said.attempt]
        return min(later)[1] if later else said.to_capability

    # --- rows ------------------------------------------------------------------------------------

    def _write(self, request_id: str, one: Heard, capability: str) -> None:
        outcome: str | None = None
        code = served_by = None
        n_tokens, first_ns, end_ns = 0, NEVER, NEVER
        if one.ended is not None:
            outcome, code, served_by, n_tokens, first_ns, end_ns = one.ended
        shared = self._shared
        common = (capability, outcome, code, one.assigned, one.delegated)
        way = shared.get(common)
        if way is None:
            way = shared[common] = Way(*common)
        served_by = shared.setdefault(served_by, served_by)
        routed = shared.setdefault(one.routed, one.routed)
        if one.row >= 0:
            row = one.row
            self._settle()
            self.way[row], self.served_by[row], self.routed[row] = way, served_by, routed
            self.prompt_tokens[row] = one.prompt_tokens
            self.n_tokens[row] = n_tokens
            self.queue_ns[row] = one.queue_ns
            self.intended_ns[row] = one.intended_ns
            self.first_ns[row], self.end_ns[row] = first_ns, end_ns
            return
        one.row = len(self.way)
        self._places.put(request_id, one)
        self.way.append(way)
        self.served_by.append(served_by)
        self.routed.append(routed)
        fresh = self._fresh
        fresh.append(one.prompt_tokens)
        fresh.append(n_tokens)
        fresh.append(one.queue_ns)
        fresh.append(one.intended_ns)
        fresh.append(first_ns)
        fresh.append(end_ns)
        if len(fresh) >= _FRESH:
            self._settle()

    def _settle(self) -> None:
        """Put the numbers of the newest rows into their columns."""
        fresh = self._fresh
        if not fresh:
            return
        columns = (
            self.prompt_tokens, self.n_tokens, self.queue_ns, self.intended_ns, self.first_ns,
            self.end_ns,
        )  # fmt: skip
        pack = Struct(f"{len(fresh) // len(columns)}q").pack
        for place, column in enumerate(columns):
            # Packed first: an array that takes a list asks each number of it what it is.
            column.frombytes(pack(*fresh[place :: len(columns)]))
        fresh.clear()

    def _read(self, row: int, one: Heard) -> None:
        self._settle()
        way = self.way[row]
        one.row = row
        one.capability = way.capability
        one.assigned = way.assigned
        one.delegated = way.delegated
        one.routed = self.routed[row]
        one.prompt_tokens = self.prompt_tokens[row]
        one.queue_ns = self.queue_ns[row]
        one.intended_ns = self.intended_ns[row]
        if way.outcome is not None:
            one.ended = (
                way.outcome, way.code, self.served_by[row], self.n_tokens[row],
                self.first_ns[row], self.end_ns[row],
            )  # fmt: skip

    def _add_gaps(self, capability: str, gaps: Mapping[int, int]) -> None:
        sums = self.itl.get(capability)
        if sums is None:
            sums = self.itl[capability] = {}
        add_gaps(sums, gaps)


class Group:
    """Some of a table's requests, all of them offered."""

    def __init__(self, table: RequestTable, rows: Sequence[int]) -> None:
        self.table = table
        self.rows = rows
        self.ways: Counter[Way] = Counter(self.of(table.way))
        """How many went which way."""
        done = {way for way in self.ways if way.outcome == COMPLETED}
        self.completed = array("q", compress(rows, map(done.__contains__, self.of(table.way))))
        """The rows of those whose client got the whole answer."""

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, column: Sequence[_Value]) -> Iterator[_Value]:
        """What stands in a column for each of them."""
        return map(column.__getitem__, self.rows)

    def by_server(self) -> dict[str, Group]:
        """The completed ones by the replica that served them."""
        found: dict[str, array[int]] = {}
        served_by = self.table.served_by
        for row in self.completed:
            name = served_by[row]
            if name:
                rows = found.get(name)
                if rows is None:
                    rows = found[name] = array("q")
                rows.append(row)
        return {name: Group(self.table, rows) for name, rows in found.items()}

    def edges(self) -> Counter[tuple[str, str]]:
        """Delegations by (capability at the hand-back, capability it was routed to next)."""
        table = self.table
        delegated = {way for way in self.ways if way.delegated}
        if not delegated:
            return Counter()
        return Counter(
            (said.from_capability, table.target_of(row, said))
            for row in compress(self.rows, map(delegated.__contains__, self.of(table.way)))
            for said in table.way[row].delegated
        )

    def values(self, kind: str) -> Iterator[float | None]:
        """One of `TIMES` of each completed one, in nanoseconds; None where it has none."""
        return _VALUES[kind](self.table, self.completed)

    def times(self, kind: str) -> list[float]:
        """The same without the Nones, ascending."""
        return sorted(value for value in self.values(kind) if value is not None)


def _ttft(table: RequestTable, rows: Sequence[int]) -> Iterator[float | None]:
    """From the intended time to the client's first token."""
    first, intended = table.first_ns, table.intended_ns
    return (first[row] - intended[row] if first[row] != NEVER else None for row in rows)


def _tpot(table: RequestTable, rows: Sequence[int]) -> Iterator[float | None]:
    """(last - first) / (tokens - 1); None below two tokens."""
    first, end, count = table.first_ns, table.end_ns, table.n_tokens
    return (
        (end[row] - first[row]) / (count[row] - 1)
        if count[row] > 1 and first[row] != NEVER
        else None
        for row in rows
    )


def _e2e(table: RequestTable, rows: Sequence[int]) -> Iterator[float | None]:
    """From the intended time to the outcome."""
    end, intended = table.end_ns, table.intended_ns
    return (end[row] - intended[row] for row in rows)


def _queue(table: RequestTable, rows: Sequence[int]) -> Iterator[float | None]:
    """In queues of scheduler and replicas."""
    return map(table.queue_ns.__getitem__, rows)


_VALUES: Final[Mapping[str, Callable[[RequestTable, Sequence[int]], Iterator[float | None]]]] = {
    "ttft": _ttft,
    "tpot": _tpot,
    "e2e": _e2e,
    "queue": _queue,
}


class _Places:
    """Which row is whose. The ids of one origin end with numbers that count up, so an array does;
    ids that do not are in a dictionary."""

    def __init__(self) -> None:
        self._numbered: dict[str, array[int]] = {}
        """By what stands before the number; -1: no row."""
        self._others: dict[str, int] = {}
        self._recent = "/"
        """The beginning that was asked for last, the next one's most likely, too."""

    def find(self, request_id: str, one: Heard) -> int:
        """The row of this id; -1: none. Notes where it is or will be."""
        if self._others and (known := self._others.get(request_id)) is not None:
            return known
        number = self._number(request_id)
        if number < 0:
            return -1
        rows = self._numbered.get(self._recent)
        if rows is None:
            rows = self._numbered[self._recent] = array("q")
        if number > len(rows) + _SPARSE:
            return -1
        one.rows, one.number = rows, number
        return rows[number] if number < len(rows) else -1

    def _number(self, request_id: str) -> int:
        """The number that an id ends with, and `_recent` what stands before it; -1: it is none, or
        not written as we write numbers."""
        if not self._recent or not request_id.startswith(self._recent):
            self._recent = request_id[: request_id.rfind("/") + 1]
        begin = len(self._recent)
        if len(request_id) > begin + _DIGITS:
            return -1
        if len(request_id) > begin + 1 and request_id[begin] == "0":
            return -1
        return number_after(self._recent, request_id)

    def put(self, request_id: str, one: Heard) -> None:
        """Its row is known from now on."""
        rows = one.rows
        if rows is None:
            self._others[request_id] = one.row
            return
        ahead = one.number - len(rows)
        if ahead >= 0:
            rows.extend(array("q", [-1]) * (ahead + _AHEAD))
        rows[one.number] = one.row
