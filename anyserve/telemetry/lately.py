"""Who asked for what, and who served it, in the last seconds of the run's clock."""

from __future__ import annotations

from collections import Counter

from anyserve.telemetry.views import LatelyView, RoutingCell

WINDOW_S = 30
_NS_PER_S = 1_000_000_000
_OFFERED, _FAILED, _STARTED, _DELEGATED = range(4)
_Key = tuple[int, str, str]
"""What is counted, the capability that was asked for, and the replica or ""."""


class Lately:
    """Counts by the second, and forgets the seconds that are older than the window.

    What is heard late counts in the second in which it happened; it is left out where that is past.
    The sums are kept up to date, so that a picture costs what is in the window and no more.
    """

    def __init__(self, length_s: int = WINDOW_S) -> None:
        self._length_s = length_s
        self._seconds: dict[int, Counter[_Key]] = {}
        self._sums: Counter[_Key] = Counter()
        self._view: LatelyView | None = None

    def offer(self, at_ns: int, asked: str, count: int = 1) -> None:
        """Requests asked for a capability."""
        self._add(at_ns, (_OFFERED, asked, ""), count)

    def fail(self, at_ns: int, asked: str, count: int = 1) -> None:
        """Requests failed or were rejected."""
        self._add(at_ns, (_FAILED, asked, ""), count)

    def start(self, at_ns: int, asked: str, replica: str, count: int = 1) -> None:
        """Attempts started at a replica."""
        self._add(at_ns, (_STARTED, asked, replica), count)

    def delegate(self, at_ns: int, asked: str, replica: str, count: int = 1) -> None:
        """Of the attempts started then, so many more had come by delegation."""
        self._add(at_ns, (_DELEGATED, asked, replica), count)

    def view(self, now_ns: int) -> LatelyView:
        """The second that runs and those before it, as others see them."""
        self._forget(now_ns // _NS_PER_S)
        if self._view is None:
            self._view = self._made()
        return self._view

    def _made(self) -> LatelyView:
        sums = sorted(self._sums.items())
        return LatelyView(
            length_s=self._length_s,
            offered={asked: count for (kind, asked, _), count in sums if kind == _OFFERED},
            failed={asked: count for (kind, asked, _), count in sums if kind == _FAILED},
            routing=tuple(
                RoutingCell(asked, replica, count, self._sums[_DELEGATED, asked, replica])
                for (kind, asked, replica), count in sums
                if kind == _STARTED
            ),
        )

    def _add(self, at_ns: int, key: _Key, count: int) -> None:
        if not count:
            return
        number = at_ns // _NS_PER_S
        second = self._seconds.setdefault(number, Counter())
        second[key] += count
        self._sums[key] += count
        self._view = None
        if len(self._seconds) > self._length_s:
            self._forget(max(self._seconds))

    def _forget(self, now_s: int) -> None:
        """Also what is still to come, on a clock that was set back."""
        past = [one for one in self._seconds if not now_s - self._length_s < one <= now_s]
        for number in past:
            self._sums.subtract(self._seconds.pop(number))
            self._view = None
        if past:
            self._sums = +self._sums
