"""The plain classes that are compiled in place of msgspec's: same fields, defaults and rules."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from anyserve.compiled.plain import (
    PLAIN,
    RECORDS,
    PlainClasses,
    rewritten_sources,
    without_collector,
)
from anyserve.compiled.sources import PACKAGE
from anyserve.core import counts, effects, inputs, messages
from anyserve.core.engine import limits

MODULES = {
    "core/messages.py": messages,
    "core/inputs.py": inputs,
    "core/effects.py": effects,
    "core/counts.py": counts,
    "core/engine/limits.py": limits,
}


def plain_modules() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    sources = rewritten_sources(PACKAGE)
    with patch.dict(sys.modules):
        for name in PLAIN:
            plain = ModuleType(f"plain.{name}")
            exec(compile(sources[name], name, "exec"), vars(plain))
            found[name] = vars(plain)
            # Those that derive classes from its own import it by its name.
            sys.modules[f"anyserve.{name.removesuffix('.py').replace('/', '.')}"] = plain
    return found


SPACES = plain_modules()
PAIRS = [
    pytest.param(theirs, SPACES[name][theirs.__name__], id=theirs.__name__)
    for name, module in MODULES.items()
    for theirs in vars(module).values()
    if inspect.isclass(theirs)
    and issubclass(theirs, msgspec.Struct)
    and theirs.__module__ == module.__name__
]


def required(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Something for each field that has to be given."""
    return {
        field.name: f"a {field.name}" for field in msgspec.structs.fields(struct) if field.required
    }


def fields_of(what: Any, struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: getattr(what, name) for name in struct.__struct_fields__}


def test_all_these_modules_are_looked_at() -> None:
    assert set(PLAIN) == set(MODULES)
    assert len(PAIRS) > 50


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_a_plain_class_has_the_same_fields_and_defaults(theirs: Any, ours: Any) -> None:
    given = required(theirs)

    assert not issubclass(ours, msgspec.Struct)
    assert fields_of(ours(**given), theirs) == fields_of(theirs(**given), theirs)
    assert set(vars(ours(**given))) == set(theirs.__struct_fields__)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_a_plain_class_is_made_by_the_same_words(theirs: Any, ours: Any) -> None:
    def words(what: Any) -> list[tuple[str, Any]]:
        parameters = inspect.signature(what).parameters.values()
        return [(one.name, one.kind) for one in parameters if one.name != "v"]  # nobody gives it

    assert words(ours) == words(theirs)
    for name, _ in words(theirs):
        given = required(theirs)
        if given.pop(name, None):
            with pytest.raises(TypeError, match=name):
                ours(**given)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_plain_classes_are_derived_from_one_another_in_the_same_way(theirs: Any, ours: Any) -> None:
    ours_alone = {module.__name__ for module in MODULES.values()}
    between = [one.__name__ for one in theirs.__mro__ if one.__module__ in ours_alone]

    assert [one.__name__ for one in ours.__mro__[:-1]] == between


def test_what_is_empty_by_default_is_shared() -> None:
    space = SPACES["core/inputs.py"]
    first, second = (space["Delta"](id="r", attempt=1) for _ in range(2))

    assert first.tokens == second.tokens == []
    assert first.gaps == second.gaps == {}
    assert first.tokens is second.tokens
    assert first.gaps is second.gaps


def test_a_changed_copy_differs_in_what_was_changed_alone() -> None:
    space = SPACES["core/messages.py"]
    before = space["Deadline"](boot="b", at_ns=1, left_ms=2)
    after = space["changed"](before, left_ms=3)

    assert (after.boot, after.at_ns, after.left_ms) == ("b", 1, 3)
    assert before.left_ms == 2
    assert type(after) is type(before)


def test_properties_stay() -> None:
    space = SPACES["core/messages.py"]
    frame = space["Frame"](id="r", attempt=1, submission=1, replica="a", incarnation=1, sequence=0)
    request = space["Request"](
        id="origin/1/2", asked="a", capability="a", prompt_tokens=1, max_tokens=1, offered_ns=0
    )

    assert request.origin == "origin"
    assert not frame.has_data


def test_other_classes_and_functions_are_left_alone() -> None:
    source = "class A(B, x=1):\n    a: int = 1\n\ndef f() -> int:\n    return 1"

    assert PlainClasses().rewrite(source) == source


MARK = "@mypy_extensions.mypyc_attr(acyclic=True, free_list_len=1)\n"


def test_the_collector_knows_of_none_of_the_records() -> None:
    sources = rewritten_sources(PACKAGE)

    assert set(sources) == {*PLAIN, *RECORDS}
    for name, classes in RECORDS.items():
        assert [one for one in classes if f"{MARK}class {one}" not in sources[name]] == []
    assert f"{MARK}class Assign(Message)" in sources["core/messages.py"]


def test_classes_that_are_not_named_stay_as_they_are() -> None:
    source = "from a import b\n\nclass A:\n    pass\n\nclass B:\n    pass"

    assert without_collector(source, {"C"}) == source
    assert without_collector(source, {"B"}) == (
        f"from a import b\nimport mypy_extensions\n\nclass A:\n    pass\n\n{MARK}class B:\n    pass"
    )
