"""Filters as people type them: `cap:decode state:saturated,lost wait>8 -in:0 s1`.

Words are joined by *and*. A word is `field:text` (contains it; commas mean *or*), `field>number`
(also `>=`, `<`, `<=`, `=`, `!=`; with `ms`, `s`, `min` or `%` behind the number), or a plain text
that may stand anywhere in the row. `-` before a word turns it round. Quotes keep spaces together.
"""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from anyserve.errors import UsageError

Value = str | float | None | Sequence[str]
Row = Mapping[str, Value]
"""The fields of one row. Times are in milliseconds, shares 0..1."""

_COMPARE = re.compile(r"(?P<field>[a-z_]+)(?P<op>>=|<=|!=|>|<|=)(?P<value>.+)\Z", re.IGNORECASE)
_TEXT = re.compile(r"(?P<field>[a-z_]+):(?P<value>.*)\Z", re.IGNORECASE)
_NUMBER = re.compile(r"(?P<number>\d+(\.\d+)?|\.\d+)(?P<unit>ms|s|min|%|k)?\Z", re.IGNORECASE)
_UNITS = {"": 1.0, "ms": 1.0, "s": 1_000.0, "min": 60_000.0, "%": 0.01, "k": 1_000.0}
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class _Contains:
    field: str
    texts: tuple[str, ...]

    def holds(self, row: Row) -> bool:
        values = _texts(row.get(self.field))
        return any(text in value for text in self.texts for value in values)


@dataclass(frozen=True, slots=True)
class _Compares:
    field: str
    op: str
    number: float

    def holds(self, row: Row) -> bool:
        value = row.get(self.field)
        if not isinstance(value, (int, float)):
            return False
        return _OPERATORS[self.op](float(value), self.number)


@dataclass(frozen=True, slots=True)
class _Anywhere:
    text: str

    def holds(self, row: Row) -> bool:
        return any(self.text in text for value in row.values() for text in _texts(value))


_Condition = _Contains | _Compares | _Anywhere


@dataclass(frozen=True, slots=True)
class Filter:
    """What a row must be; the empty filter takes every row. `text` is what was typed."""

    text: str = ""
    conditions: tuple[tuple[bool, _Condition], ...] = ()
    """(whether it must hold, the condition)."""

    def __bool__(self) -> bool:
        return bool(self.conditions)

    def matches(self, row: Row) -> bool:
        """Whether the row is as the filter wants it. An unknown value fails every comparison."""
        return all(condition.holds(row) is wanted for wanted, condition in self.conditions)


def parse_filter(text: str, fields: Collection[str]) -> Filter:
    """The filter that `text` says, over rows with these fields.

    Raises:
        UsageError: a field that is not there, a number that is none, quotes that do not close.
    """
    try:
        words = shlex.split(text, posix=True)
    except ValueError:
        hint = 'write both: cap:"decode heavy"'
        raise UsageError("a quote is not closed", code="bad_filter", hint=hint) from None
    conditions = tuple(_term(word, fields) for word in words if word != "-")
    return Filter(" ".join(text.split()), conditions)


def _term(word: str, fields: Collection[str]) -> tuple[bool, _Condition]:
    wanted = not word.startswith("-")
    word = word if wanted else word[1:]
    compared = _COMPARE.match(word)
    if compared is not None and ":" not in compared["field"]:
        field = _field(compared["field"], fields)
        return wanted, _comparison(field, compared["op"], compared["value"])
    contained = _TEXT.match(word)
    if contained is not None:
        field = _field(contained["field"], fields)
        texts = tuple(one.lower() for one in contained["value"].split(",") if one)
        return wanted, _Contains(field, texts or ("",))
    return wanted, _Anywhere(word.lower())


def _comparison(field: str, op: str, value: str) -> _Condition:
    number = _NUMBER.match(value)
    if number is None:
        raise UsageError(
            f"'{value}' is not a number",
            code="bad_filter",
            hint=f"write {field}{op}8, {field}{op}800ms, or {field}:{value} to look for a text",
        )
    return _Compares(field, op, float(number["number"]) * _UNITS[(number["unit"] or "").lower()])


def _field(name: str, fields: Collection[str]) -> str:
    lowered = name.lower()
    if lowered in fields:
        return lowered
    near = get_close_matches(lowered, fields, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    known = ", ".join(sorted(fields))
    raise UsageError(f"no field '{name}' here", code="bad_filter", hint=f"{hint}known: {known}")


def _texts(value: Value) -> tuple[str, ...]:
    if value is None:
        return ("",)
    if isinstance(value, str):
        return (value.lower(),)
    if isinstance(value, (int, float)):
        return (f"{value:g}",)
    return tuple(one.lower() for one in value) or ("",)
