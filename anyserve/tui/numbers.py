"""Numbers as people read them: always with a unit; unknown is a dash, nothing is 0."""

from __future__ import annotations

UNKNOWN = "–"  # noqa: RUF001 - means unknown everywhere
_THOUSAND = 1000
_MINUTE_S = 60
_TEN = 10
_HUNDRED = 100


def count(value: int) -> str:
    """A whole number with a thin gap between thousands: `9 412`."""
    return f"{value:,}".replace(",", " ")


def ms(value: float | None) -> str:
    """A duration given in milliseconds: `0.4 ms`, `92 ms`, `1.42 s`."""
    if value is None:
        return UNKNOWN
    if value >= _THOUSAND:
        return seconds(value / _THOUSAND)
    if value >= _TEN or value == 0:
        return f"{value:.0f} ms"
    return f"{value:.1f} ms"


def seconds(value: float) -> str:
    """A duration given in seconds: `1.42 s`, `41 s`, `2:05 min`."""
    if value >= _HUNDRED:
        minutes, rest = divmod(int(value), _MINUTE_S)
        return f"{minutes}:{rest:02d} min"
    if value >= _TEN:
        return f"{value:.0f} s"
    return f"{value:.2f} s"


def clock(value: float) -> str:
    """A time of the run: `0:47`, `-0:03`, `1:02:03`."""
    whole = int(abs(value))
    sign = "-" if value < 0 and whole else ""
    minutes, rest = divmod(whole, _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    if hours:
        return f"{sign}{hours}:{minutes:02d}:{rest:02d}"
    return f"{sign}{minutes}:{rest:02d}"


def clock_ms(value: float) -> str:
    """A time of the run with milliseconds: `0:47.208`."""
    millis = round(abs(value) * _THOUSAND)
    sign = "-" if value < 0 and millis else ""
    whole, rest = divmod(millis, _THOUSAND)
    minutes, second = divmod(whole, _MINUTE_S)
    return f"{sign}{minutes}:{second:02d}.{rest:03d}"


def percent(share: float | None) -> str:
    """A share of 1: `14%`, `0.3%`."""
    if share is None:
        return UNKNOWN
    value = share * _HUNDRED
    return f"{value:.1f}%" if 0 < value < 1 else f"{value:.0f}%"


def rate(value: float | None) -> str:
    """A number per second without its unit: `18.2`, `9 412`."""
    if value is None:
        return UNKNOWN
    return count(round(value)) if value >= _HUNDRED else f"{value:.1f}"


def short_id(request: str) -> str:
    """A request's id without the life of its origin: `player/1795746744574/143` is `player/143`."""
    words = request.split("/")
    return f"{words[0]}/{words[-1]}" if len(words) > 1 else request
