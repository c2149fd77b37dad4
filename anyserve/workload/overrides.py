"""`--set cluster.replicas[heavy].count=3`: changes to a scenario's data before it is checked."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from anyserve.workload.document import Document
from anyserve.workload.problems import Problem, ScenarioInvalid, nearest
from anyserve.workload.yaml_nodes import Loc, YamlTree, parse_yaml

_STEP: Final = re.compile(r"\.?([^.\[\]=\s]+)|\[([^\[\]=]+)\]")
_ALL: Final = "*"
NOTHING_EXPECTED: Final = "expect=[]"
"""The override that leaves out what a scenario expects."""


class _OverrideError(Exception):
    """What is wrong with one override; becomes a problem in `apply_overrides`."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def apply_overrides(document: Document, overrides: Iterable[str]) -> Document:
    """The document with every `PATH=VALUE` set, in order.

    PATH is dotted; `[name]` is a key with dots in it, a place in a list, or the item of a list that
    has this `name`; `[*]` is every item. VALUE is YAML. What is not there yet is added.

    Raises:
        ScenarioInvalid: an override that cannot be read, or whose path leads nowhere; all of them.
    """
    tree = document.tree
    data = copy.deepcopy(tree.data)
    overridden = dict(document.overridden)
    problems = []
    for words in overrides:
        try:
            for loc in _set(data, words):
                overridden[loc] = words
        except _OverrideError as error:
            problems.append(Problem("AS-S050", str(error), error.hint, f"--set {words}"))
    if problems:
        raise ScenarioInvalid(problems)
    changed = YamlTree(data, tree.values, tree.keys, tree.faults)
    return Document(document.file, document.text, changed, overridden)


def _set(data: Any, words: str) -> list[Loc]:
    path, equals, text = words.partition("=")
    steps = _steps(path.strip())
    if not equals or not steps:
        hint = "write PATH=VALUE, such as cluster.delegation.limit=0"
        raise _OverrideError("not an override", hint)
    value = _value(text)
    return [_put(data, loc, value) for loc in _ways(data, steps, ())]


def _value(text: str) -> Any:
    tree = parse_yaml(text)
    if tree.faults:
        raise _OverrideError(f"the value is {tree.faults[0].message}", "put it in quotes")
    return tree.data


def _steps(path: str) -> list[str]:
    steps, at = [], 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            return []
        steps.append(match.group(1) or match.group(2).strip())
        at = match.end()
    return steps


def _ways(data: Any, steps: list[str], loc: Loc) -> Iterator[Loc]:
    """Every way that the steps stand for; more than one only with `[*]`."""
    if not steps:
        yield loc
        return
    step, rest = steps[0], steps[1:]
    for part in _parts(data, step, loc):
        inside = _inside(data, part)
        yield from _ways({} if inside is None and rest else inside, rest, (*loc, part))


def _parts(data: Any, step: str, loc: Loc) -> list[str | int]:
    if isinstance(data, list):
        return [_place(data, step, loc)] if step != _ALL else list(range(len(data)))
    if isinstance(data, dict):
        return list(data) if step == _ALL else [step]
    raise _OverrideError(f"'{loc[-1] if loc else 'the file'}' holds nothing by the name '{step}'")


def _place(items: list[Any], step: str, loc: Loc) -> int:
    if step.isdecimal() and int(step) < len(items):
        return int(step)
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if step in names:
        return names.index(step)
    known = [name for name in names if isinstance(name, str)]
    raise _OverrideError(
        f"no '{step}' in the list '{loc[-1] if loc else ''}'", nearest(step, known)
    )


def _inside(data: Any, part: str | int) -> Any:
    return data.get(part) if isinstance(data, dict) else data[part]


def _put(data: Any, loc: Loc, value: Any) -> Loc:
    for part in loc[:-1]:
        if isinstance(data, dict) and data.get(part) is None:
            data[part] = {}
        data = data[part]
    data[loc[-1]] = copy.deepcopy(value)
    return loc
