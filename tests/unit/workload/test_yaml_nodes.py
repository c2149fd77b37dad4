from __future__ import annotations

from typing import Any

import pytest
import yaml

from anyserve.workload.yaml_nodes import (
    MAX_DEPTH,
    Mark,
    YamlTree,
    parse_yaml,
    with_own_resolvers,
)

LOADERS = [with_own_resolvers(yaml.SafeLoader)]
if hasattr(yaml, "CSafeLoader"):
    LOADERS.append(with_own_resolvers(yaml.CSafeLoader))

with_each_loader = pytest.mark.parametrize("loader", LOADERS, ids=["pure", "libyaml"])


def codes(tree: YamlTree) -> list[str]:
    return [fault.code for fault in tree.faults]


@with_each_loader
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", "True"),
        ("true", True),
        ("false", False),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("0", 0),
        ("-7", -7),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("2.", 2.0),
        (".5", ".5"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("60s", "60s"),
        ("12:30", "12:30"),
        ("2026-11-23", "2026-11-23"),
        ("null", None),
        ("~", None),
        ("NULL", "NULL"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("truely", "truely"),
    ],
)
def test_scalars(loader: type[Any], text: str, value: Any) -> None:
    tree = parse_yaml(f"key: {text}\n", loader)
    assert tree.faults == []
    assert tree.data == {"key": value}
    assert type(tree.data["key"]) is type(value)


def test_an_empty_value_is_null() -> None:
    assert parse_yaml("a:\nb: 1\n").data == {"a": None, "b": 1}


def test_an_integer_of_very_many_digits_is_text() -> None:
    assert parse_yaml("9" * 30).data == "9" * 30


@with_each_loader
@pytest.mark.parametrize("text", ["1e999", "-1e999"])
def test_a_number_that_no_float_holds(loader: type[Any], text: str) -> None:
    assert codes(parse_yaml(f"a: {text}", loader)) == ["AS-S013"]


@with_each_loader
def test_marks_of_keys_and_values(loader: type[Any]) -> None:
    tree = parse_yaml("a: 1\nb:\n  - x\n  - {deep: word}\n", loader)
    assert tree.keys[("a",)] == Mark(1, 1, 1)
    assert tree.values[("a",)] == Mark(1, 4, 1)
    assert tree.values[("b", 0)] == Mark(3, 5, 1)
    assert tree.keys[("b", 1, "deep")] == Mark(4, 6, 4)
    assert tree.values[("b", 1, "deep")] == Mark(4, 12, 4)


@with_each_loader
def test_a_key_twice_names_both_lines(loader: type[Any]) -> None:
    tree = parse_yaml("a: 1\nb: 2\na: 3\n", loader)
    (fault,) = tree.faults
    assert (fault.code, fault.mark) == ("AS-S003", Mark(3, 1, 1))
    assert "line 1" in fault.message
    assert tree.data == {"a": 1, "b": 2}


@with_each_loader
@pytest.mark.parametrize("text", ["a: !!str 1", "a: !x b", "a: ! b", "!!map {a: 1}", "!x [1]"])
def test_tags_are_refused(loader: type[Any], text: str) -> None:
    assert codes(parse_yaml(text, loader)) == ["AS-S004"]


@with_each_loader
@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\ta: 1", "--- 1\n--- 2", "a: *missing", "\x00"]
)
def test_what_is_not_yaml(loader: type[Any], text: str) -> None:
    tree = parse_yaml(text, loader)
    assert codes(tree) == ["AS-S002"]
    assert tree.data is None


def test_aliases_and_merges() -> None:
    tree = parse_yaml(
        "base: &b {x: 1, y: 2}\nother: &o {z: 9, x: 7}\n"
        "one: {<<: *b, y: 3}\ntwo: {<<: [*b, *o]}\nsame: *b\n"
    )
    assert tree.faults == []
    assert tree.data["one"] == {"y": 3, "x": 1}
    assert tree.data["two"] == {"x": 1, "y": 2, "z": 9}
    assert tree.data["same"] == {"x": 1, "y": 2}
    assert tree.values[("same", "x")].line == 1


def test_a_quoted_merge_key_is_a_key() -> None:
    assert parse_yaml("{'<<': 1}").data == {"<<": 1}


def test_a_merge_of_no_mapping() -> None:
    assert codes(parse_yaml("<<: 3\n")) == ["AS-S003"]


def test_complex_keys() -> None:
    assert codes(parse_yaml("? [a, b]\n: 1\n")) == ["AS-S003"]


@with_each_loader
def test_a_bomb_of_aliases_is_refused_quickly(loader: type[Any]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 12):
        inner = ", ".join(f"*a{n - 1}" for _ in range(10))
        lines.append(f"a{n}: &a{n} [{inner}]")
    tree = parse_yaml("\n".join(lines), loader)
    assert codes(tree) == ["AS-S005"]
    assert tree.data is None


@with_each_loader
@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}"])
def test_an_alias_in_itself(loader: type[Any], text: str) -> None:
    assert set(codes(parse_yaml(text, loader))) <= {"AS-S005", "AS-S002"}
    assert parse_yaml(text, loader).faults


def test_a_merge_of_itself() -> None:
    assert parse_yaml("a: &a\n  <<: *a\n").faults


@with_each_loader
@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "- " * 20_000 + "x"])
def test_very_deep_files_end_before_the_stack_does(loader: type[Any], text: str) -> None:
    assert "AS-S005" in codes(parse_yaml(text, loader))


def test_depth_up_to_the_limit_is_fine() -> None:
    depth = MAX_DEPTH - 1
    assert parse_yaml("[" * depth + "]" * depth).faults == []


def test_an_empty_text() -> None:
    tree = parse_yaml("# only a comment\n")
    assert tree.data is None
    assert tree.faults == []
