from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyserve.errors import UsageError
from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import load_scenario
from anyserve.workload.plugins import PluginError, is_plugin_name, resolve_class

MODULE = "wl_test_policies"


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / f"{MODULE}.py").write_text("class Mine:\n    '''A policy.'''\n")
    (tmp_path / f"{MODULE}_broken.py").write_text("raise RuntimeError('no luck')\n")
    (tmp_path / f"{MODULE}_needs.py").write_text("import wl_test_not_installed\n")
    (tmp_path / f"{MODULE}_leaves.py").write_text("import sys\n\nsys.exit(3)\n")
    (tmp_path / f"{MODULE}_typo.py").write_text("class Mine\n")
    (tmp_path / f"{MODULE}_empty.py").write_text("from pathlib import Path\n")
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in [name for name in sys.modules if name.startswith(MODULE)]:
        del sys.modules[name]


def test_a_class_beside_the_scenario(beside: Path) -> None:
    plugin = resolve_class(f"{MODULE}:Mine", beside)
    assert plugin.factory.__name__ == "Mine"
    assert plugin.beside_scenario
    assert plugin.said == f"{MODULE}:Mine from {beside.resolve() / MODULE}.py"


def test_an_installed_class(beside: Path) -> None:
    plugin = resolve_class("anyserve.core.policies:LeastLoaded", beside)
    assert not plugin.beside_scenario


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("wl_test_absent:Mine", "plugin_missing", "no module"),
        (f"{MODULE}:Other", "plugin_missing", "has no 'Other'"),
        (f"{MODULE}_broken:Mine", "plugin_failed", "RuntimeError: no luck"),
        (f"{MODULE}_needs:Mine", "plugin_failed", "wl_test_not_installed"),
        (f"{MODULE}_leaves:Mine", "plugin_failed", "SystemExit: 3"),
        (f"{MODULE}_typo:Mine", "plugin_failed", "SyntaxError: .*typo.py, line 1"),
    ],
)
def test_what_cannot_be_had(beside: Path, name: str, code: str, said: str) -> None:
    with pytest.raises(PluginError, match=said) as caught:
        resolve_class(name, beside)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (f"{MODULE}:Mien", "did you mean 'Mine'?"),
        (f"{MODULE}:Other", "it has Mine"),
        (f"{MODULE}_empty:Mine", "it has no class at all"),
        (f"{MODULE}_broken:Mine", f"raised at {{}}/{MODULE}_broken.py:1"),
        (f"{MODULE}_leaves:Mine", f"raised at {{}}/{MODULE}_leaves.py:3"),
        (f"{MODULE}_needs:Mine", f"raised at {{}}/{MODULE}_needs.py:1"),
        (f"{MODULE}_typo:Mine", ""),
    ],
)
def test_how_to_mend_it_is_said(beside: Path, name: str, hint: str) -> None:
    with pytest.raises(PluginError) as caught:
        resolve_class(name, beside)
    assert caught.value.hint == hint.format(beside.resolve())


def test_a_module_that_is_loaded_already_hides_one_beside_the_scenario(beside: Path) -> None:
    (beside / "random.py").write_text("class Mine: ...\n")
    with pytest.raises(PluginError) as caught:
        resolve_class("random:Mine", beside)
    assert "random.py beside the scenario is hidden" in caught.value.hint


def test_making_one_passes_the_arguments_on(beside: Path) -> None:
    plugin = resolve_class("fractions:Fraction", beside)
    assert str(plugin.make(2, 4)) == "1/2"


def test_making_one_that_raises_says_where(beside: Path) -> None:
    with pytest.raises(PluginError, match="making 'fractions:Fraction' failed: ZeroDiv") as caught:
        resolve_class("fractions:Fraction", beside).make(1, 0)
    assert caught.value.code == "plugin_failed"
    assert "fractions.py:" in caught.value.hint


def test_what_is_no_class_cannot_be_made(beside: Path) -> None:
    with pytest.raises(PluginError, match="a value of type str") as caught:
        resolve_class("string:digits", beside).make()
    assert caught.value.code == "plugin_shape"


@pytest.mark.parametrize("name", ["", "a", "a:", ":B", "a b:C", "a.1:C", "a:B.c"])
def test_what_is_no_name(name: str) -> None:
    assert not is_plugin_name(name)
    with pytest.raises(UsageError):
        resolve_class(name)


def test_checking_and_planning_a_scenario_never_imports_its_code(beside: Path, base: str) -> None:
    path = beside / "own.yaml"
    path.write_text(base)
    scenario = load_scenario(path, [f"cluster.scheduler.policy={MODULE}_broken:Mine"])
    run = compile_scenario(scenario, seed=1)
    scenario.to_yaml()
    assert run.cluster.scheduler.policy == f"{MODULE}_broken:Mine"
    assert run.source_path == path
    assert f"{MODULE}_broken" not in sys.modules
