"""YAML as plain data, with the line and column of every key and value.

PyYAML composes the nodes (libyaml where it is built in); what they mean is decided here. Only
`true` and `false` are booleans, numbers are decimal (`1e3` is one, `010` is text), tags are
refused, a key that stands twice is an error, and aliases cannot blow a small file up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

import yaml

try:
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # PyYAML was built without libyaml: the same, only slower
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]

Loc = tuple[str | int, ...]
"""The way to a value: keys of mappings and places in lists."""

MAX_NODES: Final = 100_000
"""Values a file may come to once its aliases are written out."""
MAX_DEPTH: Final = 32

_NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_INT: Final = "tag:yaml.org,2002:int"
_FLOAT: Final = "tag:yaml.org,2002:float"
_RESOLVERS: Final = (
    (_NULL, re.compile(r"~|null|"), ["~", "n", ""]),
    (_BOOL, re.compile(r"true|false"), ["t", "f"]),
    (_INT, re.compile(r"[-+]?(0|[1-9][0-9]{0,17})"), list("-+0123456789")),
    (
        _FLOAT,
        re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)"),
        list("-+0123456789"),
    ),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something stands: line and column from 1, and how many characters to underline."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class YamlFault:
    """Something wrong with the YAML itself, before it means anything."""

    code: str
    message: str
    mark: Mark | None
    hint: str = ""


@dataclass(slots=True)
class YamlTree:
    """Plain data and, for each way into it, where the value and where its key stand."""

    data: Any = None
    values: dict[Loc, Mark] = field(default_factory=dict)
    keys: dict[Loc, Mark] = field(default_factory=dict)
    faults: list[YamlFault] = field(default_factory=list)


def with_own_resolvers(base: type[Any]) -> type[Any]:
    """A loader class like `base` that reads plain scalars by the rules above."""
    loader = type("ScenarioLoader", (base,), {"yaml_implicit_resolvers": {}})
    for tag, pattern, first in _RESOLVERS:
        whole = re.compile(rf"(?:{pattern.pattern})\Z")
        loader.add_implicit_resolver(tag, whole, first)  # type: ignore[attr-defined]
    return loader


_LOADER: Final = with_own_resolvers(_BaseLoader)


def parse_yaml(text: str, loader: type[Any] = _LOADER) -> YamlTree:
    """Read one YAML document. Never raises for what stands in it: see `YamlTree.faults`."""
    tree = YamlTree()
    try:
        # Two passes: events first, so that depth is known before composing recurses in C.
        if not all(_events_are_plain(text, loader, tree.faults)):
            return tree
        node = yaml.compose(text, loader)
    except yaml.YAMLError as error:
        tree.faults.append(_syntax_fault(error))
        return tree
    if node is not None:
        _Builder(tree).build(node)
    return tree


def _events_are_plain(text: str, loader: type[Any], faults: list[YamlFault]) -> Iterator[bool]:
    depth = 0
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if tag is not None:
            faults.append(_tag_fault(tag, _mark(event)))
        if depth > MAX_DEPTH:
            faults.append(YamlFault("AS-S005", f"nested deeper than {MAX_DEPTH}", _mark(event)))
        yield depth <= MAX_DEPTH


def _tag_fault(tag: str, mark: Mark) -> YamlFault:
    shown = tag.replace("tag:yaml.org,2002:", "!!")
    return YamlFault("AS-S004", f"the YAML tag {shown} is not allowed here", mark, "leave it out")


def _syntax_fault(error: yaml.YAMLError) -> YamlFault:
    place = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if place is None:  # characters that no YAML file may hold
        return YamlFault("AS-S002", f"not YAML: {str(error).splitlines()[0]}", None)
    said = getattr(error, "problem", None) or "not YAML"
    context = getattr(error, "context", None)
    message = f"not YAML: {said}" + (f" ({context})" if context else "")
    hint = "indent with spaces, not with tabs" if "'\\t'" in said else ""
    return YamlFault("AS-S002", message, Mark(place.line + 1, place.column + 1), hint)


def _mark(node: Any) -> Mark:
    start, end = node.start_mark, node.end_mark
    width = max(1, end.column - start.column) if start.line == end.line else 1
    return Mark(start.line + 1, start.column + 1, width)


class _TooMuchError(Exception):
    """Aliases within aliases: the node budget is spent."""


class _Builder:
    """Makes plain data of nodes and notes where each part stands."""

    def __init__(self, tree: YamlTree) -> None:
        self._tree = tree
        self._left = MAX_NODES
        self._open: set[int] = set()

    def build(self, root: yaml.Node) -> None:
        try:
            self._tree.data = self._value(root, ())
        except _TooMuchError:
            message = f"more than {MAX_NODES:,} values once aliases are written out"
            self._fault("AS-S005", message, root)
            self._tree.data = None

    def _fault(self, code: str, message: str, node: yaml.Node, hint: str = "") -> None:
        self._tree.faults.append(YamlFault(code, message, _mark(node), hint))

    def _value(self, node: yaml.Node, loc: Loc) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError
        self._tree.values[loc] = _mark(node)
        if isinstance(node, yaml.ScalarNode):
            value = scalar(node)
            if value in {inf, -inf}:
                self._fault("AS-S013", f"{node.value} is too large for a number", node)
            return value
        if id(node) in self._open or len(loc) > MAX_DEPTH:
            self._fault("AS-S005", "an alias that holds itself", node)
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*loc, i)) for i, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, loc)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault("AS-S003", "a key must be plain text", key)
            elif key.value == "<<" and not key.style:
                merged.append(value)
            elif key.value in pairs:
                self._twice(key, pairs[key.value][0])
            else:
                pairs[key.value] = (key, value)
        for source in merged:
            for name, pair in self._merge_pairs(source, loc).items():
                pairs.setdefault(name, pair)
        result = {}
        for name, (key, value) in pairs.items():
            self._tree.keys[*loc, name] = _mark(key)
            result[name] = self._value(value, (*loc, name))
        return result

    def _twice(self, key: yaml.ScalarNode, first: yaml.Node) -> None:
        line = first.start_mark.line + 1
        message = f"'{key.value}' stands here a second time; the first is on line {line}"
        self._fault("AS-S003", message, key, "keep one of them")

    def _merge_pairs(
        self, source: yaml.Node, loc: Loc
    ) -> Mapping[str, tuple[yaml.Node, yaml.Node]]:
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        nodes = source.value if isinstance(source, yaml.SequenceNode) else [source]
        for node in nodes:
            self._left -= 1
            if not isinstance(node, yaml.MappingNode) or self._left < 0 or len(loc) > MAX_DEPTH:
                self._fault("AS-S003", "`<<` takes a mapping, or a list of them", source)
                return pairs
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value == "<<" and not key.style:
                    deeper = self._merge_pairs(value, (*loc, "<<"))
                    for name, pair in deeper.items():
                        pairs.setdefault(name, pair)
                else:
                    pairs.setdefault(key.value, (key, value))
        return pairs


def scalar(node: yaml.ScalarNode) -> Any:
    """What a scalar means: null, true, false, a number or text."""
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return node.value == "true"
    if node.tag == _INT:
        return int(node.value)
    return float(node.value) if node.tag == _FLOAT else node.value
