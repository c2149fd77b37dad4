"""The routing matrix: what was asked, and which replica served it, lately or in the whole run.

The columns are those of the whole run either way, so that nothing moves when a replica has served
nothing for a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anyserve.telemetry.views import LatelyView, Snapshot
from anyserve.tui.spans import Line, line
from anyserve.tui.views.look import Look
from anyserve.tui.widgets.columns import GAP, Column, widest

_NAME, _MOST_NAME, _ASKED, _WAIT, _LAST = 13, 24, 5, 4, 6
_CELL, _SUM_CELL, _MOST_CELL = 5, 8, 11
_MANY = 8
"""More replicas than this will hardly have a column each; one is for the sum of the others."""
TOTAL = ""
"""The key of the row below the capabilities."""


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One capability asked. `cells`: replica -> (attempts started, of them by delegation)."""

    asked: str
    offered: int
    waiting: int
    cells: Mapping[str, tuple[int, int]]
    others: tuple[int, int]
    """The same for the replicas that have no column."""
    failed: int


def whole_run(snapshot: Snapshot) -> LatelyView:
    """The counts since the beginning, as the window has them."""
    return LatelyView(
        offered={queue.capability: queue.offered for queue in snapshot.queues},
        failed={queue.capability: queue.failed + queue.rejected for queue in snapshot.queues},
        routing=snapshot.routing,
    )


def window_name(counted: LatelyView) -> str:
    """Which time is counted, for the title."""
    return f"last {counted.length_s} s" if counted.length_s else "whole run"


def served_by(snapshot: Snapshot, counted: LatelyView, most: int) -> tuple[list[str], int]:
    """The replicas with a column, busiest kept, in the order of their names; and how many more."""
    totals: dict[str, int] = {}
    for cell in snapshot.routing:
        totals[cell.replica] = totals.get(cell.replica, 0) + cell.started
    if len(totals) > most:
        most = max(1, most - 1)  # one column is for the others
    lately: dict[str, int] = {}
    for cell in counted.routing:
        lately[cell.replica] = lately.get(cell.replica, 0) + cell.started
    chosen = sorted(totals, key=lambda name: (-lately.get(name, 0), -totals[name], name))[:most]
    order = {replica.id: place for place, replica in enumerate(snapshot.replicas)}
    return sorted(chosen, key=lambda name: order.get(name, -1)), len(totals) - len(chosen)


def room_for(width: int, snapshot: Snapshot) -> int:
    """How many replicas have room for a column."""
    return max(1, (width - _fixed_width(snapshot)) // (_cell_width(snapshot) + GAP))


def needed_width(snapshot: Snapshot) -> int:
    """How wide the matrix is with a column for every replica that served something."""
    replicas = len({cell.replica for cell in snapshot.routing})
    return _fixed_width(snapshot) + replicas * (_cell_width(snapshot) + GAP)


def _fixed_width(snapshot: Snapshot) -> int:
    name = widest((queue.capability for queue in snapshot.queues), _NAME, _MOST_NAME)
    failed = any(queue.failed + queue.rejected for queue in snapshot.queues)
    return 2 + name + GAP + _ASKED + GAP + _WAIT + (GAP + _LAST if failed else 0)


def _cell_width(snapshot: Snapshot) -> int:
    texts = (f"{cell.started} ~{cell.delegated}" for cell in snapshot.routing if cell.delegated)
    names = {cell.replica for cell in snapshot.routing}
    least = _SUM_CELL if len(names) > _MANY else _CELL
    return widest((*texts, *names), least, _MOST_CELL)


def matrix(snapshot: Snapshot, counted: LatelyView, replicas: Sequence[str]) -> list[MatrixRow]:
    """A row for each capability that somebody asked for or offers."""
    cells: dict[str, dict[str, tuple[int, int]]] = {}
    others: dict[str, tuple[int, int]] = {}
    for cell in counted.routing:
        if cell.replica in replicas:
            cells.setdefault(cell.asked, {})[cell.replica] = (cell.started, cell.delegated)
        else:
            started, delegated = others.get(cell.asked, (0, 0))
            others[cell.asked] = (started + cell.started, delegated + cell.delegated)
    return [
        MatrixRow(
            asked=queue.capability,
            offered=counted.offered.get(queue.capability, 0),
            waiting=queue.queued,
            cells=cells.get(queue.capability, {}),
            others=others.get(queue.capability, (0, 0)),
            failed=counted.failed.get(queue.capability, 0),
        )
        for queue in snapshot.queues
    ]


def total_row(rows: Sequence[MatrixRow]) -> MatrixRow:
    """The columns summed up."""
    cells: dict[str, tuple[int, int]] = {}
    for row in rows:
        for replica, (started, delegated) in row.cells.items():
            before = cells.get(replica, (0, 0))
            cells[replica] = (before[0] + started, before[1] + delegated)
    return MatrixRow(
        TOTAL,
        sum(row.offered for row in rows),
        sum(row.waiting for row in rows),
        cells,
        (sum(row.others[0] for row in rows), sum(row.others[1] for row in rows)),
        sum(row.failed for row in rows),
    )


def columns(
    snapshot: Snapshot, replicas: Sequence[str], more: int, look: Look
) -> tuple[Column, ...]:
    """One column for each replica that served something; failures where there are any."""
    name = widest((queue.capability for queue in snapshot.queues), _NAME, _MOST_NAME)
    cell = _cell_width(snapshot)
    any_failed = any(queue.failed + queue.rejected for queue in snapshot.queues)
    served = [
        Column(f"@{replica}", look.glyphs.text(replica), cell, "right", priority=80 - place)
        for place, replica in enumerate(replicas)
    ]
    others = [Column("others", f"+{more}", cell, "right", priority=20)] if more else []
    failed = [Column("failed", "failed", _LAST, "right", priority=90)]
    return (
        Column("cap", "asked for", name, priority=100),
        Column("asked", "asked", _ASKED, "right", priority=99),
        Column("wait", "wait", _WAIT, "right", priority=95),
        *served,
        *others,
        *(failed if any_failed else []),
    )


def cells(row: MatrixRow, widths: Mapping[str, int], look: Look) -> dict[str, Line]:
    """A row of the matrix; below the capabilities, which share came to a replica by delegation."""
    if row.asked == TOTAL:
        return _shares(row, look)
    best = max((started for started, _ in row.cells.values()), default=0)
    out: dict[str, Line] = {
        "cap": (look.capability(row.asked),),
        "asked": _count(row.offered, look),
        "wait": line((str(row.waiting), "warn")) if row.waiting else _nothing(look),
        "others": _cell(row.others, look, best=0),
        "failed": line((str(row.failed), "bad")) if row.failed else _nothing(look),
    }
    for key in widths:
        if key.startswith("@"):
            out[key] = _cell(row.cells.get(key[1:], (0, 0)), look, best=best)
    return out


def _shares(row: MatrixRow, look: Look) -> dict[str, Line]:
    out: dict[str, Line] = {"cap": line(("by delegation", "dim"))}
    for replica, (started, delegated) in row.cells.items():
        share = f"{round(100 * delegated / started)}%" if started else look.glyphs.unknown
        out[f"@{replica}"] = line((share, "hop" if delegated else "faint"))
    return out


def _cell(cell: tuple[int, int], look: Look, *, best: int) -> Line:
    started, delegated = cell
    if not started:
        return _nothing(look)
    role = "bold" if started == best else ""
    mark = f"{look.glyphs.hop}{delegated}" if delegated else ""
    if delegated == started:
        return line((mark, "hop"))
    return line((str(started), role), (f" {mark}" if mark else "", "hop"))


def _count(value: int, look: Look) -> Line:
    return line(str(value)) if value else _nothing(look)


def _nothing(look: Look) -> Line:
    return line((look.glyphs.zero, "faint"))
