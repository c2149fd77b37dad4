"""The code on the page about handlers is the shipped example, and its test passes."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from anyserve.workload.load import load_scenario

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reranker.py"
TEXT = (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8")
MODULE, WORKER, TEST = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
ALONE, BESIDE = (
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    yield
    sys.modules.pop("reranker", None)


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


def test_the_module_on_the_page_is_the_shipped_one() -> None:
    assert code_of(MODULE) == code_of(EXAMPLE.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(("change", "passes"), [("", True), ("[0.9, 0.1]", False)])
def test_the_test_on_the_page_passes_and_can_fail(change: str, passes: bool) -> None:
    page: dict[str, Any] = {}
    text = TEST.replace(change, "[0.0, 0.9]") if change else TEST
    exec(compile(text.replace("[0.0, 1.0]", "[0.1, 1.0]"), "docs/handlers.md", "exec"), page)
    (test,) = [value for name, value in page.items() if name.startswith("test_")]

    if passes:
        asyncio.run(test())
    else:
        with pytest.raises(AssertionError):
            asyncio.run(test())


def test_the_worker_on_the_page_is_one() -> None:
    page: dict[str, Any] = {}
    exec("from anyserve import App, Context\napp = App()\n" + WORKER, page)

    assert page["app"].handlers["classify"].is_worker


def test_the_settings_on_the_page_are_those_of_the_example() -> None:
    scenario = load_scenario(EXAMPLE.with_suffix(".yaml"))
    replica = scenario.to_plain()["cluster"]["replicas"]["r1"]
    shown = ALONE["cluster"]["replicas"]["r1"]

    assert shown["app"] == replica["app"]["name"]
    assert list(replica["capabilities"]) == shown["capabilities"]
    assert BESIDE["cluster"]["replicas"]["both"]["app"]["serves"] == ["rerank"]
