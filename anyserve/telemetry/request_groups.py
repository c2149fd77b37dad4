"""Reading a table of requests: those that asked for one capability, were served by one replica, or
all; their times, in nanoseconds.

Whole columns at a time: a simulated run may have millions of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from anyserve.core.order import NEVER
from anyserve.telemetry.request_table import COLUMNS, COMPLETED, RequestTable, Way

TIMES: Final = ("ttft", "tpot", "e2e", "queue")
Times = npt.NDArray[np.int64] | npt.NDArray[np.float64]
_Rows = npt.NDArray[np.intp]


class Group:
    """Some of a table's requests, all of them offered."""

    def __init__(self, table: RequestTable, rows: _Rows) -> None:
        self.table = table
        self._rows = rows
        way = column(table, "way")[rows]
        counts = np.bincount(way, minlength=len(table.ways)).tolist()
        self.ways: Mapping[Way, int] = {
            one: count for one, count in zip(table.ways, counts, strict=True) if count
        }
        """How many went which way."""
        self._way = way
        self._completed = rows[_holds(way, [one.outcome == COMPLETED for one in table.ways])]
        """The rows of those whose client got the whole answer."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def completed(self) -> int:
        """How many clients got the whole answer."""
        return len(self._completed)

    def sum_of(self, name: str) -> int:
        """The sum of one of the table's `COLUMNS` over them."""
        return int(column(self.table, name)[self._rows].sum())

    def by_server(self) -> dict[str, Group]:
        """The completed ones by the replica that served them."""
        servers = column(self.table, "served_by")[self._completed]
        order = np.argsort(servers, kind="stable")
        rows, servers = self._completed[order], servers[order]
        begins = np.flatnonzero(np.diff(servers, prepend=-1))
        parts = np.split(rows, begins[1:]) if len(begins) else []
        names = [self.table.servers[number] for number in servers[begins].tolist()]
        return {
            name: Group(self.table, part) for name, part in zip(names, parts, strict=True) if name
        }

    def edges(self) -> Counter[tuple[str, str]]:
        """Delegations by (capability at the hand-back, capability it was routed to next)."""
        table = self.table
        delegated = _holds(self._way, [bool(one.delegated) for one in table.ways])
        rows, ways = self._rows[delegated].tolist(), self._way[delegated].tolist()
        return Counter(
            (said.from_capability, table.target_of(row, said))
            for row, way in zip(rows, ways, strict=True)
            for said in table.ways[way].delegated
        )

    def times(self, kind: str) -> Times:
        """One of `TIMES` of each completed one that has it, ascending."""
        values, there = self.values(kind)
        found = values[there]
        found.sort()
        return found

    def values(self, kind: str) -> tuple[Times, npt.NDArray[np.bool_]]:
        """One of `TIMES` of each completed one, and which of them have it.

        `ttft`: from the intended time to the client's first token. `tpot`: (last - first) /
        (tokens - 1); none below two tokens. `e2e`: from the intended time to the outcome. `queue`:
        in queues of scheduler and replicas.
        """
        table, rows = self.table, self._completed
        every = np.ones(len(rows), dtype=np.bool_)
        if kind == "queue":
            return column(table, "queue_ns")[rows], every
        end, intended = column(table, "end_ns")[rows], column(table, "intended_ns")[rows]
        if kind == "e2e":
            return end - intended, every
        first = column(table, "first_ns")[rows]
        if kind == "ttft":
            return first - intended, first != NEVER
        gaps = column(table, "n_tokens")[rows] - 1
        return (end - first) / np.maximum(gaps, 1), (gaps > 0) & (first != NEVER)


def groups_of(table: RequestTable) -> dict[str, Group]:
    """Every request whose `offered` was seen, by the capability that it asked for."""
    table.settle()
    way = column(table, "way")
    names = sorted({one.capability for one in table.ways})
    found = {}
    for name in names:
        asked = _holds(way, [one.capability == name for one in table.ways])
        found[name] = Group(table, np.flatnonzero(asked))
    return {name: group for name, group in found.items() if len(group)}


def whole_of(table: RequestTable, groups: Mapping[str, Group]) -> Group:
    """These groups, which are all, as one."""
    if len(groups) == 1:
        return next(iter(groups.values()))
    return Group(table, np.arange(len(table.routed)))


def column(table: RequestTable, name: str) -> npt.NDArray[np.int64]:
    """One of the table's `COLUMNS`, as it lies there: while it is held, the table cannot grow."""
    numbers = np.frombuffer(table.rows, dtype=np.int64, count=len(COLUMNS) * len(table.routed))
    return numbers.reshape(-1, len(COLUMNS))[:, COLUMNS.index(name)]


def _holds(way: npt.NDArray[np.int64], truths: list[bool]) -> npt.NDArray[np.bool_]:
    """For each way that was gone whether something holds for it."""
    return np.array(truths, dtype=np.bool_)[way]
