"""The code on the page about policies is the shipped example, and its test passes."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from anyserve.workload.load import load_scenario

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "shortest_work.py"
TEXT = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
CLASS, TEST = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    yield
    sys.modules.pop("shortest_work", None)


def code_of(text: str) -> list[str]:
    """What a module does, without its documentation."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return [ast.unparse(node) for node in tree.body if "__future__" not in ast.unparse(node)]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_the_class_on_the_page_is_the_shipped_one() -> None:
    assert code_of(CLASS) == code_of(EXAMPLE.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("importable")
def test_the_test_on_the_page_passes() -> None:
    page: dict[str, Any] = {}
    exec(compile(TEST, "docs/policies.md", "exec"), page)
    tests = [value for name, value in page.items() if name.startswith("test_")]

    assert len(tests) == 1
    tests[0]()


@pytest.mark.usefixtures("importable")
def test_the_test_on_the_page_can_fail() -> None:
    page: dict[str, Any] = {}
    exec(compile(TEST.replace('"b": 0', '"b": 8'), "docs/policies.md", "exec"), page)

    with pytest.raises(AssertionError):
        page["test_two_short_requests_are_less_work_than_a_long_one"]()


def test_the_settings_on_the_page_are_those_of_the_example() -> None:
    scenario = load_scenario(EXAMPLE.with_suffix(".yaml"))
    cluster, expect = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    )
    section = scenario.file.cluster.scheduler

    assert cluster["cluster"]["scheduler"] == {"policy": section.policy, "options": section.options}
    assert set(expect["expect"]) <= {str(one) for one in scenario.file.expect}
