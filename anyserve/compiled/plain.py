"""Classes as they are compiled: msgspec's written as plain ones, and records without a collector.

A field of a `msgspec.Struct` is read through Python's own machinery, whatever the code around it
was compiled to. In a simulation no message leaves its process, so none has to be encoded; there its
class can be one with the same name, bases, fields and defaults, and the constructor that msgspec
would give it. mypyc makes a record of that, whose fields are read where they lie.

These, and what is made for each request and step beside them (`RECORDS`), never refer to themselves
in a circle. Python's collector need not know of them: each is smaller then, and sooner made and
freed. The memory of the last one freed is kept for the next one of its class.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

_STRUCT: Final = "msgspec.Struct"
_FIELD: Final = "msgspec.field"
_REPLACE: Final = "msgspec.structs.replace"
_EMPTY: Final = """
import typing
_NO_ITEMS: typing.Final[list[typing.Any]] = []
_NO_KEYS: typing.Final[dict[typing.Any, typing.Any]] = {}
"""
"""What fields are by default that hold nothing."""
_SHARED: Final = {"[]": "_NO_ITEMS", "{}": "_NO_KEYS"}


PLAIN: Final = (
    "core/messages.py",
    "core/inputs.py",
    "core/effects.py",
    "core/counts.py",
    "core/engine/limits.py",
)
"""The modules whose classes are made plain, those first that others derive classes from."""

RECORDS: Final[Mapping[str, frozenset[str]]] = {
    "core/engine/model.py": frozenset({"_Wish"}),
    "core/engine/plan.py": frozenset({"StepPlan"}),
    "core/engine/sequence.py": frozenset({"Sequence"}),
    "core/engine/stretch.py": frozenset({"Stretch"}),
    "core/origin/pending.py": frozenset({"Pending", "Stream"}),
    "core/replica/slot.py": frozenset({"Said", "Slot"}),
    "core/scheduler/pool.py": frozenset({"RequestView"}),
    "core/scheduler/ranking.py": frozenset({"Filter"}),
    "core/scheduler/routing.py": frozenset({"_Eligible"}),
    "core/scheduler/state.py": frozenset({"Ticket", "Unacked"}),
    "core/token_counts.py": frozenset({"TokenCounts"}),
    "sim/agenda.py": frozenset({"Entry"}),
    "sim/worker.py": frozenset({"Job"}),
    "telemetry/request_table.py": frozenset({"Heard"}),
}
"""Other classes that the collector need not know of, by module: whoever makes a circle of them
breaks it (a worker's job and its sequence), as the collector is off while a simulation runs."""


def rewritten_sources(package: Path) -> dict[str, str]:
    """The modules of the package that are not compiled as they are."""
    texts = {name: (package / name).read_text(encoding="utf-8") for name in (*PLAIN, *RECORDS)}
    classes = PlainClasses()
    plain = {name: classes.rewrite(texts[name]) for name in PLAIN}
    return plain | {name: without_collector(texts[name], RECORDS[name]) for name in RECORDS}


def without_collector(source: str, names: Collection[str]) -> str:
    """The module with these of its classes unknown to the collector."""
    return _unparsed(_Marks(names).visit(ast.parse(source)))


def _unparsed(tree: ast.Module) -> str:
    """The module as text. Where classes are marked, what marks them is imported."""
    if any(isinstance(node, ast.ClassDef) and node.decorator_list for node in tree.body):
        after = 1 + next(
            place for place, line in enumerate(tree.body) if isinstance(line, ast.ImportFrom)
        )
        tree.body.insert(after, ast.Import([ast.alias("mypy_extensions")]))
    return ast.unparse(ast.fix_missing_locations(tree))


def _mark() -> ast.expr:
    """What tells mypyc that a class takes part in no circle, and to keep the memory of one."""
    return ast.parse("mypy_extensions.mypyc_attr(acyclic=True, free_list_len=1)", mode="eval").body


class _Marks(ast.NodeTransformer):
    """Marks classes by their names."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """See `ast.NodeTransformer`."""
        if node.name in self._names:
            node.decorator_list.append(_mark())
        return node


class _Field(NamedTuple):
    """A field as source: its name, its type and its default."""

    name: str
    type: str
    default: str | None
    keyword: bool
    """It is given by its name only."""
    made: bool
    """By a factory, for each object; nobody gives it."""

    @property
    def shared(self) -> str | None:
        """What all objects share where they are given nothing: an empty list or dictionary. With
        msgspec each has its own, but nobody changes what is in a message."""
        return _SHARED.get(str(self.default))

    @property
    def parameter(self) -> str:
        """What the constructor takes."""
        if self.default is None:
            return f"{self.name}: {self.type}"
        if self.shared:
            return f"{self.name}: {self.type} = {self.shared}"
        return f"{self.name}: {self.type} = {self.default}"

    @property
    def value(self) -> str:
        """What the constructor keeps."""
        if self.made:
            return str(self.default)
        return self.name


class PlainClasses(ast.NodeTransformer):
    """Rewrites modules, those first that others derive classes from."""

    def __init__(self) -> None:
        self._fields: dict[str, list[_Field]] = {_STRUCT: []}
        """Of each class, inherited ones first."""
        self._always: dict[str, str] = {}
        """Factories that give the same value to each object, and that value."""

    def rewrite(self, source: str) -> str:
        """The module with plain classes. It has no comments, and no words about its fields."""
        tree = self.visit(ast.parse(source))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if used.intersection(_SHARED.values()):
            first = next(at for at, line in enumerate(tree.body) if isinstance(line, ast.ClassDef))
            tree.body[first:first] = ast.parse(_EMPTY).body
        return _unparsed(tree)

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        """See `ast.NodeTransformer`."""
        match node:
            case ast.Assign(
                targets=[ast.Name(name)],
                value=ast.Attribute(
                    value=ast.Call(func=ast.Name("repeat"), args=[value]), attr="__next__"
                ),
            ):
                self._always[name] = ast.unparse(value)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """See `ast.NodeTransformer`."""
        inherited = self._fields.get(ast.unparse(node.bases[0])) if node.bases else None
        if inherited is None:
            return node
        own = [line for line in node.body if isinstance(line, ast.AnnAssign)]
        keyword = "kw_only=True" in [ast.unparse(word) for word in node.keywords]
        fields = [*inherited, *(self._field(line, keyword=keyword) for line in own)]
        self._fields[node.name] = fields
        node.keywords = []
        node.decorator_list.append(_mark())
        node.bases = [base for base in node.bases if ast.unparse(base) != _STRUCT]
        node.body = [
            *(ast.AnnAssign(line.target, line.annotation, None, simple=1) for line in own),
            *_methods(node.name, fields),
            *(self.visit(line) for line in node.body if isinstance(line, ast.FunctionDef)),
        ]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """See `ast.NodeTransformer`."""
        self.generic_visit(node)
        if ast.unparse(node.func) == _REPLACE:
            what = ast.unparse(node.args[0])
            node.func = ast.parse(f"getattr({what}, '__replace__')", mode="eval").body
            node.args = []
        return node

    def _field(self, line: ast.AnnAssign, *, keyword: bool) -> _Field:
        name, kind = ast.unparse(line.target), ast.unparse(line.annotation)
        if isinstance(line.value, ast.Call) and ast.unparse(line.value.func) == _FIELD:
            (given,) = (word.value for word in line.value.keywords if word.arg == "default_factory")
            factory = ast.unparse(given)
            value = self._always.get(factory, f"{factory}()")
            return _Field(name, kind, value, keyword, made=True)
        default = None if line.value is None else ast.unparse(line.value)
        return _Field(name, kind, default, keyword, made=False)


def _methods(name: str, fields: list[_Field]) -> list[ast.stmt]:
    """The constructor, and what makes a copy with some fields changed."""
    given = [field for field in fields if not field.made]
    by_place = [field.parameter for field in given if not field.keyword]
    by_name = [field.parameter for field in given if field.keyword]
    parameters = ", ".join(["self", *by_place, *(["*"] if by_name else []), *by_name])
    values = [f"self.{field.name} = {field.value}" for field in fields]
    arguments = ", ".join(f"{field.name}=self.{field.name}" for field in given)
    source = f"""
def __init__({parameters}) -> None:
    {"; ".join(values) or "pass"}
def __replace__(self, **changes: object) -> {name}:
    copy = {name}({arguments})
    for field, value in changes.items():
        setattr(copy, field, value)
    return copy
"""
    return ast.parse(source).body
