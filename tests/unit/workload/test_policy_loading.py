"""From the name of a policy to the policy."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from anyserve.core.policies import LeastLoaded, PowerOfTwo
from anyserve.core.spec import SchedulerSpec
from anyserve.errors import AnyServeError, ScenarioError
from anyserve.workload.plugins import PluginError
from anyserve.workload.policies import load_policy, try_policy

EXAMPLES = str(Path(__file__).parents[3] / "examples")


def load(policy: str, scenario_dir: str | None = None, **options: Any) -> object:
    rules = SchedulerSpec(policy=policy, policy_options=options)
    return load_policy(rules, random.Random(0), scenario_dir)


def test_a_shipped_one_by_its_name() -> None:
    assert isinstance(load("least-loaded"), LeastLoaded)
    assert try_policy(SchedulerSpec(policy="least-loaded"), None) is None


def test_one_of_an_installed_module() -> None:
    assert isinstance(load("anyserve.core.policies:PowerOfTwo", choices=3), PowerOfTwo)


def test_one_beside_the_scenario() -> None:
    rules = SchedulerSpec(policy="shortest_work:ShortestWork")
    found = try_policy(rules, EXAMPLES)

    assert found is not None
    assert found.beside_scenario
    assert type(load(rules.policy, EXAMPLES)).__name__ == "ShortestWork"


def test_options_that_it_does_not_take() -> None:
    with pytest.raises(PluginError, match="could not convert string to float") as caught:
        load("shortest_work:ShortestWork", EXAMPLES, prompt_weight="much")
    assert "shortest_work.py:" in caught.value.hint


@pytest.mark.parametrize("policy", ["fastest", "not a name:", ":Mine"])
def test_a_name_of_no_policy(policy: str) -> None:
    with pytest.raises(ScenarioError, match="no routing policy"):
        load(policy)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("fractions:Fraction", "making 'fractions:Fraction' failed: TypeError"),
        ("operator:is_", "it has no method choose"),
    ],
)
def test_what_is_no_policy(policy: str, said: str) -> None:
    with pytest.raises(AnyServeError) as caught:
        load(policy, choices=1)
    assert said in caught.value.message
    assert caught.value.exit_code == 2
