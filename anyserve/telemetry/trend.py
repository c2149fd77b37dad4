"""A replica's last five minutes in steps of three seconds: what a plot can show, and no more."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from anyserve.core.messages import Load
from anyserve.telemetry.views import TrendPoint

LENGTH_S = 300
STEP_S = 3
_NS_PER_S = 1_000_000_000
_STEP_NS = STEP_S * _NS_PER_S
_LENGTH_NS = LENGTH_S * _NS_PER_S


class Trend:
    """The highest value of each step; the memory is that of `LENGTH_S / STEP_S` points."""

    def __init__(self) -> None:
        self._points: deque[TrendPoint] = deque(maxlen=LENGTH_S // STEP_S)

    def load(self, at_ns: int, load: Load) -> None:
        """A load report."""
        last = self._step(at_ns)
        self._points[-1] = replace(
            last,
            waiting=max(last.waiting or 0, load.waiting),
            running=max(last.running or 0, load.running),
            kv_usage=_higher(last.kv_usage, load.kv_usage),
            tokens_per_s=max(last.tokens_per_s or 0.0, load.tokens_per_s),
        )

    def ttft(self, at_ns: int, ttft_ms: float) -> None:
        """A request got its first token so many milliseconds after it was meant to be sent."""
        last = self._step(at_ns)
        self._points[-1] = replace(last, ttft_ms=_higher(last.ttft_ms, ttft_ms))

    def view(self) -> tuple[TrendPoint, ...]:
        """The steps, oldest first."""
        return tuple(self._points)

    def _step(self, at_ns: int) -> TrendPoint:
        """The step of a time; what is heard late belongs to the newest one."""
        begins = at_ns - at_ns % _STEP_NS
        if self._points and self._points[-1].at_ns - begins > _LENGTH_NS:
            self._points.clear()  # the clock was set back
        if not self._points or self._points[-1].at_ns < begins:
            self._points.append(TrendPoint(begins))
        while self._points[0].at_ns <= begins - _LENGTH_NS:
            self._points.popleft()
        return self._points[-1]


def _higher(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None
