"""Capabilities: who offers them, what was asked of them, and what hangs on one replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anyserve.telemetry.views import Level, QueueView, ReplicaView, Snapshot
from anyserve.tui.frame import Frame
from anyserve.tui.spans import EMPTY, Line, Span, clip, line
from anyserve.tui.views.look import Look, number_cell, state_cell
from anyserve.tui.widgets.charts import split_bar
from anyserve.tui.widgets.columns import Column

_SERVING = frozenset({"ready", "saturated"})
_BAR = 20

COLUMNS: tuple[Column, ...] = (
    Column("name", "capability and its replicas", 22, priority=100, flex=True, most=40),
    Column("state", "state", 13, priority=90),
    Column("slots", "free slots", 10, "right", priority=85),
    Column("asked", "asked", 6, "right", priority=95),
    Column("wait", "wait", 5, "right", priority=94),
    Column("served", "served", 6, "right", priority=80),
    Column("hop", "by hop", 6, "right", priority=75),
    Column("failed", "failed", 6, "right", priority=70),
    Column("flow", "served here, by delegation, failed", _BAR, priority=50, flex=True, most=40),
)


@dataclass(frozen=True, slots=True)
class Node:
    """A capability, or below it a replica that offers it. `last`: the last of its replicas."""

    capability: QueueView
    replica: ReplicaView | None = None
    last: bool = False
    started: int = 0
    delegated: int = 0

    @property
    def key(self) -> str:
        """What tells it from every other."""
        below = "" if self.replica is None else f"/{self.replica.id}"
        return f"{self.capability.capability}{below}"


def nodes(snapshot: Snapshot) -> list[Node]:
    """The tree, flat: each capability, then its replicas."""
    found: list[Node] = []
    for queue in snapshot.queues:
        name = queue.capability
        started = sum(cell.started for cell in snapshot.routing if cell.asked == name)
        hops = sum(cell.delegated for cell in snapshot.routing if cell.asked == name)
        found.append(Node(queue, started=started, delegated=hops))
        offering = [one for one in snapshot.replicas if name in one.offers]
        for place, replica in enumerate(offering):
            cells = [
                cell
                for cell in snapshot.routing
                if cell.asked == name and cell.replica == replica.id
            ]
            found.append(
                Node(
                    queue,
                    replica,
                    place == len(offering) - 1,
                    sum(cell.started for cell in cells),
                    sum(cell.delegated for cell in cells),
                )
            )
    return found


def cells(node: Node, widths: Mapping[str, int], frame: Frame, look: Look) -> dict[str, Line]:
    """A row of the tree."""
    glyphs = look.glyphs
    if node.replica is not None:
        replica = node.replica
        branch = glyphs.last_branch if node.last else glyphs.branch
        free = _free(replica)
        return {
            "name": line((f"  {branch}", "faint"), (glyphs.text(replica.id), "bold")),
            "state": state_cell(frame, replica.state, replica.progress, replica.changed_ns, look),
            "slots": line((f"{free} of {replica.concurrency}", "" if free else "warn")),
            "served": number_cell(node.started, look),
            "hop": number_cell(node.delegated, look, "hop"),
        }
    queue = node.capability
    serving = [one for one in frame.snapshot.replicas if queue.capability in one.offers]
    ready = [one for one in serving if one.state in _SERVING]
    free = sum(_free(one) for one in ready)
    slots = sum(one.concurrency for one in ready)
    role = "ok" if ready else "bad"
    words = f"{len(ready)} of {len(serving)} ready"
    row = {
        "name": (look.capability(queue.capability),),
        "state": line((words, role)),
        "slots": line((f"{free} of {slots}", "" if free else "warn")),
        "asked": number_cell(queue.offered, look),
        "wait": number_cell(queue.queued, look, "warn"),
        "served": number_cell(node.started, look),
        "hop": number_cell(node.delegated, look, "hop"),
        "failed": number_cell(queue.failed + queue.rejected, look, "bad"),
    }
    if "flow" in widths:
        row["flow"] = split_bar(
            [
                (node.started - node.delegated, "ok"),
                (node.delegated, "hop"),
                (queue.failed + queue.rejected, "bad"),
            ],
            widths["flow"],
            glyphs,
        )
    return row


def _free(replica: ReplicaView) -> int:
    if replica.state not in _SERVING:
        return 0
    return max(0, replica.concurrency - (replica.running or 0) - (replica.waiting or 0))


def what_if(snapshot: Snapshot, replica: ReplicaView, look: Look) -> list[Line]:
    """What would be lost with a replica."""
    lines: list[Line] = []
    for name in sorted(replica.offers):
        others = [
            one
            for one in snapshot.replicas
            if one.id != replica.id and name in one.offers and one.state in _SERVING
        ]
        slots = sum(one.concurrency for one in others)
        if others:
            names = ", ".join(one.id for one in others[:4])
            more = f" and {len(others) - 4} more" if len(others) > 4 else ""  # noqa: PLR2004 - as above
            lines.append(
                (
                    Span(f" {look.glyphs.ok} ", "ok"),
                    look.capability(name),
                    Span(f" goes on at {names}{more}, {slots} slots", "dim"),
                )
            )
        else:
            lines.append(
                (
                    Span(f" {look.glyphs.bad} ", "bad"),
                    look.capability(name),
                    Span(" has no other ready replica: its requests would wait or fail", "bad"),
                )
            )
    held = replica.held
    if held:
        lines.append(line((f"   {held} requests there would be recovered or fail", "dim")))
    return lines


def side_lines(node: Node | None, frame: Frame, width: int, look: Look) -> list[Line]:
    """What hangs on the row with the cursor, and all advice."""
    lines: list[Line] = []
    if node is not None and node.replica is not None:
        lines.append(line((f" if {node.replica.id} is lost", "bold")))
        lines += what_if(frame.snapshot, node.replica, look)
    elif node is not None:
        lines.append((Span(" "), look.capability(node.capability.capability)))
        queue = node.capability
        lines.append(
            line(
                (" asked ", "dim"), str(queue.offered),
                ("  completed ", "dim"), (str(queue.completed), "ok"),
                ("  waiting ", "dim"), (str(queue.queued), "warn" if queue.queued else "dim"),
                ("  delegated away ", "dim"), (str(queue.delegated), "hop"),
            )
        )  # fmt: skip
    lines += [EMPTY, line((" advice", "bold"))]
    if not frame.advice:
        lines.append(line((" none: no rule has anything to say", "dim")))
    for one in frame.advice:
        role = "bad" if one.level is Level.ERROR else "warn"
        lines.append(line((f" {one.code} ", role), look.glyphs.text(one.text)))
        lines.append(line(("           do: ", "dim"), look.glyphs.text(one.knob)))
    return [clip(one, width, look.glyphs.ellipsis) for one in lines]
