"""How things are written on every screen: characters, and which role a name plays."""

from __future__ import annotations

from dataclasses import dataclass

from anyserve.telemetry.views import Level, Snapshot
from anyserve.tui.frame import Frame
from anyserve.tui.glyphs import UNICODE, Glyphs
from anyserve.tui.numbers import percent
from anyserve.tui.palette import CAPABILITY_ROLES
from anyserve.tui.spans import Line, Span, line

_STATE_ROLES = {
    "ready": "ok",
    "saturated": "warn",
    "draining": "hop",
    "starting": "info",
    "loading": "info",
    "lost": "bad",
    "stopped": "dim",
}
_LEVEL_ROLES = {Level.INFO: "info", Level.WARN: "warn", Level.ERROR: "bad"}
_OUTCOME_ROLES = {"completed": "ok", "failed": "bad", "rejected": "bad", "expired": "bad",
                  "cancelled": "warn"}  # fmt: skip
_SHOWS_AGE = frozenset({"lost", "stopped"})


@dataclass(frozen=True, slots=True)
class Look:
    """`capabilities` in the order that gives them their colours."""

    glyphs: Glyphs = UNICODE
    capabilities: tuple[str, ...] = ()

    def capability(self, name: str) -> Span:
        """A capability's name, always in the same colour."""
        known = self.capabilities
        number = known.index(name) if name in known else len(known)
        return Span(self.glyphs.text(name), f"cap{number % CAPABILITY_ROLES}")

    def of(self, snapshot: Snapshot) -> Look:
        """This look with the capabilities of a snapshot; the same object where they are equal."""
        names = tuple(queue.capability for queue in snapshot.queues)
        return self if names == self.capabilities else Look(self.glyphs, names)


def state_cell(frame: Frame, state: str, progress: float | None, changed_ns: int, look: Look) -> (
    Line
):  # fmt: skip
    """A replica's state as shape and word; how far it is loaded, or how long it is gone."""
    role = _STATE_ROLES.get(state, "dim")
    words = look.glyphs.text(state)
    if state == "starting" and progress is not None:
        words = f"loading {percent(progress)}"
    elif state in _SHOWS_AGE:
        age_s = max(0, frame.snapshot.now_ns - changed_ns) / 1e9
        words = f"{state} {age_s:.0f} s"
    return line((f"{look.glyphs.state(state)} {words}", role))


def outcome_cell(outcome: str | None, code: str | None, took: str, look: Look) -> Line:
    """How a request ended, or that it has not."""
    if outcome is None:
        return line((f"{look.glyphs.pending} running", "info"))
    role = _OUTCOME_ROLES.get(outcome, "dim")
    if outcome == "completed":
        return line((f"{look.glyphs.ok} {took}", role))
    return line((f"{look.glyphs.bad} {code or outcome}", role))


def level_role(level: Level) -> str:
    """The role of an event's level."""
    return _LEVEL_ROLES[level]


def number_cell(value: int, look: Look, role: str = "") -> Line:
    """A count; nothing is a dot."""
    if not value:
        return line((look.glyphs.zero, "faint"))
    return line((str(value), role))


def natural(name: str) -> tuple[str, int]:
    """`r10` comes after `r9`."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem, int(digits) if digits else -1
