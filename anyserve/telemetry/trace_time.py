"""From marks on several clocks to lengths on one: each at least 0, together exactly the whole.

Marks on the clock of the reference boot (the origin's) are anchors: between two neighbouring
anchors the length is exact. Where the chain leaves that clock, the stretch between the anchors is
filled with what other boots measured on their own clocks; what is left over belongs to the steps
that cross clocks, and they share it: first those that cannot be transit, else all alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from anyserve.telemetry.trace_model import HOPPING, RECOVERING, SegmentKind
from anyserve.telemetry.trace_path import Mark

_SHARES_LAST = HOPPING | RECOVERING


@dataclass(frozen=True, slots=True)
class Lengths:
    """The length of each mark's segment. `skew_ns`: the worst contradiction that was clamped."""

    durations_ns: list[int]
    estimated: list[bool]
    skew_ns: int


def measure(marks: Sequence[Mark], end_ns: int) -> Lengths:
    """Lengths that sum to `end_ns - marks[0].t` (0 where that is negative).

    The first mark and `end_ns` are on the reference clock.
    """
    boot = marks[0].boot
    times = [*((mark.t, mark.boot) for mark in marks), (end_ns, boot)]
    anchors = [index for index, (_, where) in enumerate(times) if where == boot]
    position, skew = times[0][0], 0
    end_ns = max(end_ns, position)
    skew = max(skew, position - times[-1][0])
    durations: list[int] = []
    estimated: list[bool] = []
    for start, stop in pairwise(anchors):
        asked = times[stop][0]
        reached = min(max(asked, position), end_ns)
        skew = max(skew, abs(reached - asked)) if stop != anchors[-1] else skew
        kinds = [mark.kind for mark in marks[start:stop]]
        inner = _fill(times[start : stop + 1], kinds, reached - position)
        durations += inner.durations_ns
        estimated += inner.estimated
        skew = max(skew, inner.skew_ns)
        position = reached
    return Lengths(durations, estimated, skew)


def _fill(times: Sequence[tuple[int, str]], kinds: Sequence[SegmentKind], total: int) -> Lengths:
    """Lengths of the steps between two anchors that lie `total` apart."""
    if len(kinds) == 1:
        return Lengths([total], [False], 0)
    skew = 0
    known: list[int | None] = []
    for (t, boot), (next_t, next_boot) in pairwise(times):
        if boot != next_boot:
            known.append(None)
            continue
        skew = max(skew, t - next_t)
        known.append(max(0, next_t - t))
    left = total - sum(length for length in known if length is not None)
    skew = max(skew, -left)
    shares = iter(_shares(known, kinds, max(0, left)))
    lengths = [next(shares) if length is None else length for length in known]
    return Lengths(_trim(lengths, total), [length is None for length in known], skew)


def _shares(known: Sequence[int | None], kinds: Sequence[SegmentKind], left: int) -> list[int]:
    """Split `left` exactly over the steps whose length nobody measured."""
    open_kinds = [kind for kind, length in zip(kinds, known, strict=True) if length is None]
    takes = [kind not in _SHARES_LAST for kind in open_kinds]
    if not any(takes):
        takes = [True] * len(open_kinds)
    count = sum(takes)
    shares, given = [], 0
    for take in takes:
        share = left * (given + 1) // count - left * given // count if take else 0
        given += take
        shares.append(share)
    return shares


def _trim(lengths: list[int], total: int) -> list[int]:
    """Cut from the end what does not fit (clocks ran at different speeds)."""
    trimmed, room = [], total
    for length in lengths:
        fits = min(length, room)
        trimmed.append(fits)
        room -= fits
    return trimmed
