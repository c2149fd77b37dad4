"""Small ways to write numbers and foreign text for people."""

from __future__ import annotations

_US, _MS, _S, _MIN = 1_000, 1_000_000, 1_000_000_000, 60_000_000_000
_WHOLE_FROM = 100


def format_ns(duration_ns: int) -> str:
    """A duration with the unit that suits it: `0 ms`, `0.4 ms`, `92 ms`, `1.21 s`, `2:05 min`."""
    if duration_ns == 0:
        return "0 ms"
    if duration_ns < 0:
        return f"-{format_ns(-duration_ns)}"
    if duration_ns < _MS // 20:
        return f"{duration_ns / _US:.3g} µs"
    if duration_ns < _S:
        value = duration_ns / _MS
        return f"{value:.0f} ms" if value >= _WHOLE_FROM else f"{value:.3g} ms"
    if duration_ns < _MIN:
        return f"{duration_ns / _S:.2f} s"
    minutes, rest = divmod(duration_ns // _S, 60)
    return f"{minutes}:{rest:02d} min"


def clean(text: str) -> str:
    """Foreign text on one line, without characters that could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)
