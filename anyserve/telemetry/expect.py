"""Did the run do what its scenario expects? Assertions on the data of `summary.json`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any

from anyserve.core.spec import Expectation

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COUNTS_BY_NAME = frozenset({"by_reason", "by_edge", "bus_troubles"})
"""Maps that hold only names that occurred: what is absent there happened 0 times."""


class Verdict(Enum):
    """What became of an expectation. Only `ok` is passed."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown metric"
    INCOMPLETE = "incomplete log"


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """`actual` and `limit` are what was compared; `note` says why nothing was, or how to mend."""

    expectation: Expectation
    verdict: Verdict
    actual: Any = None
    limit: Any = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the run did what was expected."""
        return self.verdict is Verdict.OK

    @property
    def text(self) -> str:
        """The expectation as it was written."""
        wanted = self.expectation
        return wanted.text or f"{wanted.metric} {wanted.op} {wanted.value}"


class _Missing(Exception):  # noqa: N818 - carries a path inside this module, never leaves it
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def evaluate(
    expectations: Iterable[Expectation], summary: Mapping[str, Any]
) -> list[ExpectationResult]:
    """Each expectation against `summary`, in order. On an incomplete log none passes."""
    return [_evaluate(expectation, summary) for expectation in expectations]


def metric_paths(summary: Mapping[str, Any]) -> list[str]:
    """Every path of `summary` that an expectation can name, sorted."""
    return sorted(_paths(summary, ""))


def _evaluate(wanted: Expectation, summary: Mapping[str, Any]) -> ExpectationResult:
    try:
        actual = _resolve(summary, wanted.metric)
        limit = _limit(summary, wanted.value)
    except _Missing as missing:
        close = get_close_matches(missing.path, metric_paths(summary), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return ExpectationResult(
            wanted, Verdict.UNKNOWN, note=f"no metric '{missing.path}' in the summary{hint}"
        )
    if actual is None or limit is None:
        path = wanted.metric if actual is None else wanted.value
        note = f"nothing was measured for '{path}'"
        return ExpectationResult(wanted, Verdict.FAILED, actual, limit, note)
    try:
        held = _OPERATORS[wanted.op](actual, limit)
    except TypeError:
        note = f"{actual!r} and {limit!r} cannot be compared by {wanted.op}"
        return ExpectationResult(wanted, Verdict.FAILED, actual, limit, note)
    if held and not summary.get("complete", False):
        reasons = ", ".join(summary.get("incomplete_because") or ["the log is not complete"])
        return ExpectationResult(
            wanted, Verdict.INCOMPLETE, actual, limit, f"incomplete: {reasons}"
        )
    return ExpectationResult(wanted, Verdict.OK if held else Verdict.FAILED, actual, limit)


def _limit(summary: Mapping[str, Any], value: float | str) -> Any:
    """A number as it is, a metric's value where the text is a path, else the text itself."""
    if not isinstance(value, str):
        return value
    try:
        return _resolve(summary, value)
    except _Missing:
        if "." in value:
            raise
        return value


def _resolve(summary: Mapping[str, Any], path: str) -> Any:
    for found in _walk(summary, path.split("."), ""):
        return found
    raise _Missing(path)


def _walk(node: Any, words: list[str], name: str) -> Iterator[Any]:
    """Every value that `words` lead to; a key may itself hold dots (`decode.heavy`)."""
    if not words:
        if not isinstance(node, (dict, list)):
            yield node
        return
    if not isinstance(node, Mapping):
        return
    for count in range(1, len(words) + 1):
        key = ".".join(words[:count])
        if key in node:
            yield from _walk(node[key], words[count:], key)
    if name in _COUNTS_BY_NAME and ".".join(words) not in node:
        yield 0


def _paths(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield f"{prefix}{key}"
