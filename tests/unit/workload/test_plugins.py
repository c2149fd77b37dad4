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
    ],
)
def test_what_cannot_be_had(beside: Path, name: str, code: str, said: str) -> None:
    with pytest.raises(PluginError, match=said) as caught:
        resolve_class(name, beside)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)


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
