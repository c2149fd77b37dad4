"""Multiplying whole picoseconds."""

from __future__ import annotations

from typing import Final

_LOW_BITS: Final = 20
_LOW: Final = (1 << _LOW_BITS) - 1


def product(time_ps: int, factor: int) -> int:
    """`time_ps * factor`, by two smaller products: compiled code multiplies numbers above 2**31 as
    the interpreter does, ten times as long."""
    return ((time_ps >> _LOW_BITS) * factor << _LOW_BITS) + (time_ps & _LOW) * factor
