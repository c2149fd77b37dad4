"""A violated invariant, as a text that a person can act on: its name, the request, its story."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from anyserve.core import effects as fx
from anyserve.core import messages as msg

MS = 1_000_000
REMEMBERED = 24
"""Lines of a request's story that are kept."""

INVARIANTS = {
    1: "delegation bound",
    2: "one outcome",
    3: "right place",
    4: "no shortcut",
    5: "monotone upgrade",
    6: "whole stream",
    7: "bounds hold",
    8: "work conservation",
}
"""By their numbers in the architecture."""

QUIET = (
    msg.Control, msg.Credit, msg.KeepAlive, msg.Registration, msg.SchedulerState, msg.StaleEpoch,
    msg.Yield,
)  # fmt: skip
Line = tuple[int, str, str, object]
"""When, who, to whom, what."""


class Violated(AssertionError):  # noqa: N818 - reads as a sentence: invariant 4 is violated
    """An invariant does not hold; the text begins with its number and name."""

    def __init__(self, invariant: int, what: str, story: list[str] | None = None) -> None:
        self.invariant = invariant
        lines = [f"{invariant} {INVARIANTS[invariant]}: {what}", *(story or [])]
        super().__init__("\n  ".join(lines))


class Stories:
    """The last messages about each request, told when an invariant is violated."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Line]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def note(self, now: int, who: str, whom: str, what: object) -> None:
        """Remember something about every request that it names."""
        for request in named(what):
            self._lines[request].append((now, who, whom, what))

    def say(self, now: int, request: str, who: str, what: str) -> None:
        """Remember a sentence about one request."""
        self._lines[request].append((now, who, "", what))

    def violated(self, invariant: int, what: str, request: str | None = None) -> Violated:
        """The exception to raise, with the story of `request`."""
        if request is None:
            return Violated(invariant, what)
        story = [_told(line) for line in self._lines[request]]
        return Violated(invariant, f"{request} {what}", story)


def named(what: object) -> list[str]:
    """The requests that a message is about."""
    if isinstance(what, QUIET):
        return []
    if isinstance(what, msg.Settled):
        return what.ids
    if isinstance(what, msg.Holding):
        return [held.id for held in what.held]
    one: Any = what
    request_id = getattr(one, "id", None)
    return [request_id if isinstance(request_id, str) else one.request.id]


def _told(line: Line) -> str:
    now, who, whom, what = line
    way = f"{who} -> {whom}:" if whom else f"{who}:"
    return f"{now / MS:9.1f} ms  {way} {in_words(what)}"


def in_words(what: object) -> str:
    """A message in a few words: its kind and what tells it from others."""
    if isinstance(what, str):
        return what
    one: Any = what
    parts = [type(what).__name__]
    request = getattr(one, "request", None)
    parts += [f"{name} {getattr(one, name)}" for name in FIELDS if hasattr(one, name)]
    if request is not None:
        parts.append(f"as {request.capability}")
    if isinstance(what, fx.Finish):
        parts.append(f"{what.outcome.kind.value} {what.outcome.code or ''}".rstrip())
    if isinstance(what, msg.Frame):
        parts.append(f"tokens {what.start}+{len(what.tokens)}{' end' if what.end else ''}")
    for name in ("code", "reason", "status"):
        value = getattr(one, name, None)
        if value is not None:
            parts.append(value.value)
    return " ".join(parts)


FIELDS = ("attempt", "submission", "incarnation", "epoch", "ordinal", "delegations", "capability")
