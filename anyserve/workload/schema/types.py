"""The small types that scenario files are made of: durations, names, attributes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

_NS_PER_UNIT: Final = {
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
SECOND: Final = 1_000_000_000
DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(us|ms|s|m|h))+$"
_DURATION: Final = re.compile(DURATION_PATTERN)
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
_MAX_NS: Final = 366 * 24 * 3_600_000_000_000
_MAX_CHARS: Final = 40


class Section(BaseModel):
    """Base of every mapping in a scenario file: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


def parse_duration(value: object) -> int:
    """`250ms`, `60s`, `1m30s` in nanoseconds."""
    if not isinstance(value, str):
        shown = f"{value}" if isinstance(value, int | float) else "this"
        raise PydanticCustomError(
            "AS-S014", f"{shown} has no unit", {"hint": "write a duration as 250ms, 60s or 1m30s"}
        )
    if len(value) > _MAX_CHARS or _DURATION.match(value) is None:
        raise PydanticCustomError(
            "AS-S014",
            "'{value}' is not a duration",
            {"value": value[:_MAX_CHARS], "hint": "write a duration as 250ms, 60s or 1m30s"},
        )
    total = sum(Decimal(number) * _NS_PER_UNIT[unit] for number, unit in _PART.findall(value))
    if total > _MAX_NS:
        raise PydanticCustomError("AS-S013", "a duration is at most one year", {})
    return int(total)


def _positive_duration(value: object) -> int:
    duration_ns = parse_duration(value)
    if duration_ns == 0:
        raise PydanticCustomError("AS-S013", "must be longer than 0s", {})
    return duration_ns


def format_duration(duration_ns: int) -> str:
    """The shortest way to write it with one unit: `1500ms`, `90s`."""
    for unit in ("h", "m", "s", "ms"):
        if duration_ns % _NS_PER_UNIT[unit] == 0 and duration_ns:
            return f"{duration_ns // _NS_PER_UNIT[unit]}{unit}"
    if duration_ns == 0:
        return "0s"
    return f"{Decimal(duration_ns) / 1000:f}us"


_DURATION_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": DURATION_PATTERN,
    "examples": ["250ms", "60s", "1m30s"],
}
_shape = (PlainSerializer(format_duration, return_type=str), WithJsonSchema(_DURATION_SCHEMA))

Duration = Annotated[int, BeforeValidator(parse_duration), *_shape]
"""A duration in nanoseconds, written with its unit."""
PositiveDuration = Annotated[int, BeforeValidator(_positive_duration), *_shape]

_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
SIZE_PATTERN: Final = r"^[0-9]+(B|KiB|MiB|GiB)$"
_SIZE: Final = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)")


def parse_size(value: object) -> int:
    """`256KiB`, `1GiB` in bytes."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        shown = str(value)[:_MAX_CHARS] if isinstance(value, str | int | float) else "this"
        raise PydanticCustomError(
            "AS-S017",
            "'{value}' is not a size",
            {"value": shown, "hint": "write a size as 256KiB, 64MiB or 1GiB"},
        )
    return int(found[1]) * _UNITS[found[2]]


def format_size(size: int) -> str:
    """The shortest way to write it with one unit."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["256KiB", "1GiB"]}),
]
"""A number of bytes, written with its unit."""

CAPABILITY_PATTERN: Final = r"^[a-z][a-z0-9]*(\.[a-z0-9]+)*$"
ID_PATTERN: Final = r"^[a-z0-9-]{1,32}$"
ID_TEMPLATE_PATTERN: Final = r"^[a-z0-9-]{0,24}\{n\}[a-z0-9-]{0,24}$"

CapabilityName = Annotated[str, StringConstraints(pattern=CAPABILITY_PATTERN, max_length=64)]
Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Attributes = dict[
    Annotated[str, StringConstraints(min_length=1, max_length=64)],
    Annotated[str, StringConstraints(max_length=256)],
]
