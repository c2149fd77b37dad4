"""From `ttft.p95_ms < 800` to data."""

from __future__ import annotations

import re
from typing import Final, Literal, cast

from anyserve.core.spec import Expectation

Operator = Literal["==", "!=", "<", "<=", ">", ">="]
# The operator stands between blanks, so that `decode->decode.heavy` stays one word.
_SHAPE: Final = re.compile(r"(\S+)\s+(==|!=|<=|>=|<|>)\s+(\S+)")
_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")


def parse_expectation(text: str, *, line: int | None = None) -> Expectation | None:
    """The expectation that `text` is; None where it is none."""
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        return None
    metric, op, value = match.groups()
    return Expectation(
        metric=metric, op=cast("Operator", op), value=_value(value), line=line, text=text.strip()
    )


def _value(text: str) -> float | str:
    return float(text) if _NUMBER.fullmatch(text) else text
