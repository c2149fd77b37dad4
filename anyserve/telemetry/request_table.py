"""What a summary needs of each request, kept small: a row of numbers and of words that many share.

A run of a million requests is counted in some 90 bytes each; `request_groups` reads them. A request
keeps its row when it has ended, for what other processes say of it may be read later.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

from anyserve.core.counts import OfferedCount, OutcomeCount
from anyserve.core.events import RequestDelegated, RequestOffered, RequestOutcome
from anyserve.core.order import NEVER
from anyserve.core.origin.pending import add_gaps
from anyserve.core.seen import number_after

COMPLETED: Final = "completed"
_SPARSE: Final = 1 << 16
"""So far beyond the last one a number still has a place in the array of its origin."""
_AHEAD: Final = 1024
"""So many places an array grows at a time, and so many rows the table."""
_DIGITS: Final = 18
COLUMNS: Final = (
    "way", "served_by", "prompt_tokens", "n_tokens", "queue_ns", "intended_ns", "first_ns",
    "end_ns",
)  # fmt: skip
"""The numbers of a row, of 64 bits each. `way` and `served_by`: which of the table's `ways` and
`servers`. A time that was not reached is `NEVER`."""
_ROW: Final = Struct(f"{len(COLUMNS)}q")
_SIZE: Final = 64
_PACK_INTO: Final = _ROW.pack_into
_UNPACK_FROM: Final = _ROW.unpack_from


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
        self.ended: OutcomeCount | None = None
        """Without gaps where it was read from its row."""

    def replica_of(self, attempt: int) -> str | None:
        """The replica this attempt was bound to, where the scheduler bound it."""
        return next((name for number, _, name in self.routed if number == attempt), None)

    def delegate(self, event: RequestDelegated) -> None:
        """It was delegated; said twice, it counts once."""
        if all(event.attempt != said.attempt for said in self.delegated):
            one = (event.attempt, event.from_capability, event.to_capability, event.reason)
            self.delegated = (*self.delegated, Delegated(*one))


class RequestTable:
    """A row for each request that was offered, once it has its outcome or `settle` is called."""

    def __init__(self) -> None:
        self.ways: list[Way] = []
        self.servers: list[str | None] = []
        """Replicas that served, and None for none."""
        self.routed: list[tuple[Routed, ...]] = []
        """By row."""
        self.rows = bytearray()
        """`COLUMNS` of each, row by row, and room for more."""
        self.itl: dict[str, dict[int, int]] = {}
        """Gaps between tokens of completed requests, by capability asked."""
        self._early: dict[str, Mapping[int, int]] = {}
        """Gaps of requests that were not heard to be offered yet."""
        self.open: dict[str, Heard] = {}
        """What was heard of requests without an outcome, by id; `heard` where an id is not here."""
        self._places = _Places()
        self._server_numbers: dict[str | None, int] = {}
        self._all_bound: dict[tuple[int, str], dict[str, tuple[Routed, ...]]] = {}
        """First ones, by attempt (of each scheduler life another), capability and replica."""
        self._bound: dict[str, tuple[Routed, ...]] = {}
        """Those like the last one."""
        self._bound_as, self._bound_for = -1, ""
        self._way_numbers: dict[Way, int] = {}
        self._last_way = -1
        self._last_capability = ""
        self._last_outcome = ""
        self._last_code: str | None = None

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
        self.count_offered(
            OfferedCount(event.id, event.capability, event.prompt_tokens, event.intended_ns)
        )

    def count_offered(self, offered: OfferedCount) -> None:
        """A client asked for it."""
        one = self.heard(offered.id)
        one.capability = offered.capability
        one.prompt_tokens = offered.prompt_tokens
        one.intended_ns = offered.intended_ns
        if one.ended is not None:
            self._add_gaps(offered.capability, self._early.pop(offered.id, {}))
            self._write(offered.id, one, offered.capability)
            del self.open[offered.id]

    def bind(self, request_id: str, attempt: int, capability: str, replica: str) -> Heard:
        """The scheduler bound this attempt to a replica."""
        one = self.heard(request_id)
        one.assigned = True
        if one.routed:
            one.routed += ((attempt, capability, replica),)
        else:
            one.routed = self._first_bound(attempt, capability, replica)
        return one

    def _first_bound(self, attempt: int, capability: str, replica: str) -> tuple[Routed, ...]:
        """What most requests have in common that go there: one object for all of them."""
        if attempt != self._bound_as or capability is not self._bound_for:
            self._bound_as, self._bound_for = attempt, capability
            self._bound = self._all_bound.setdefault((attempt, capability), {})
        routed = self._bound.get(replica)
        if routed is None:
            routed = self._bound[replica] = ((attempt, capability, replica),)
        return routed

    def end(self, event: RequestOutcome) -> None:
        """It has its outcome; only the first one counts."""
        first_ns = NEVER if event.first_ns is None else event.first_ns
        self.count_outcome(
            OutcomeCount(
                event.id, event.outcome, event.code, event.served_by, event.n_tokens, first_ns,
                event.end_ns, event.itl_ns,
            )
        )  # fmt: skip

    def count_outcome(self, ended: OutcomeCount) -> None:
        """It has its outcome; only the first one counts."""
        one = self.heard(ended.id)
        if one.ended is not None:
            return
        one.ended = ended
        capability = one.capability
        gaps = ended.itl_ns if ended.outcome == COMPLETED else _NO_GAPS
        if capability is None:
            self._early[ended.id] = gaps
            return
        if gaps:
            self._add_gaps(capability, gaps)
        self._write(ended.id, one, capability)
        del self.open[ended.id]

    def settle(self) -> None:
        """Give every request a row whose `offered` was seen."""
        for request_id, one in self.open.items():
            if one.capability is not None:
                self._write(request_id, one, one.capability)

    def target_of(self, row: int, said: Delegated) -> str:
        """The capability it was routed to after this delegation."""
        later = [routed for routed in self.routed[row] if routed[0] > said.attempt]
        return min(later)[1] if later else said.to_capability

    # --- rows ------------------------------------------------------------------------------------

    def _write(self, request_id: str, one: Heard, capability: str) -> None:
        ended = one.ended
        n_tokens, first_ns, end_ns = 0, NEVER, NEVER
        server: str | None = None
        if ended is not None:
            n_tokens, first_ns, end_ns = ended.n_tokens, ended.first_ns, ended.end_ns
            server = ended.served_by
        if one.row < 0:
            one.row = len(self.routed)
            self._places.put(request_id, one)
            self.routed.append(one.routed)
            if _SIZE * len(self.routed) > len(self.rows):
                self.rows.extend(bytes(_SIZE * _AHEAD))
        else:
            self.routed[one.row] = one.routed
        way, served_by = self._way_of(one, capability, ended), self._number_of(server)
        _PACK_INTO(
            self.rows, _SIZE * one.row, way, served_by, one.prompt_tokens, n_tokens, one.queue_ns,
            one.intended_ns, first_ns, end_ns,
        )  # fmt: skip

    def _number_of(self, server: str | None) -> int:
        number = self._server_numbers.get(server)
        if number is None:
            number = self._server_numbers[server] = len(self.servers)
            self.servers.append(server)
        return number

    def _way_of(self, one: Heard, capability: str, ended: OutcomeCount | None) -> int:
        """The number of its way; most went the same one as the last."""
        if ended is None or one.delegated or not one.assigned:
            outcome, code = (None, None) if ended is None else (ended.outcome, ended.code)
            return self._number_of_way(Way(capability, outcome, code, one.assigned, one.delegated))
        if (
            self._last_way < 0
            or ended.outcome is not self._last_outcome
            or ended.code is not self._last_code
            or capability is not self._last_capability
        ):
            way = Way(capability, ended.outcome, ended.code, assigned=True, delegated=())
            self._last_way = self._number_of_way(way)
            self._last_outcome, self._last_code = ended.outcome, ended.code
            self._last_capability = capability
        return self._last_way

    def _number_of_way(self, way: Way) -> int:
        number = self._way_numbers.get(way)
        if number is None:
            number = self._way_numbers[way] = len(self.ways)
            self.ways.append(way)
        return number

    def _read(self, row: int, one: Heard) -> None:
        number, server, prompt_tokens, n_tokens, queue_ns, intended_ns, first_ns, end_ns = (
            _UNPACK_FROM(self.rows, _SIZE * row)
        )
        way = self.ways[number]
        one.row = row
        one.capability = way.capability
        one.assigned = way.assigned
        one.delegated = way.delegated
        one.routed = self.routed[row]
        one.prompt_tokens = prompt_tokens
        one.queue_ns = queue_ns
        one.intended_ns = intended_ns
        if way.outcome is not None:
            one.ended = OutcomeCount(
                "", way.outcome, way.code, self.servers[server], n_tokens, first_ns, end_ns,
                _NO_GAPS,
            )  # fmt: skip

    def _add_gaps(self, capability: str, gaps: Mapping[int, int]) -> None:
        sums = self.itl.get(capability)
        if sums is None:
            sums = self.itl[capability] = {}
        add_gaps(sums, gaps)


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
