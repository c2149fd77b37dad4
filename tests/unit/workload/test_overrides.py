from __future__ import annotations

from collections.abc import Callable

import pytest

from anyserve.workload.load import parse_scenario
from anyserve.workload.problems import Problem, ScenarioInvalid

ProblemsOf = Callable[..., list[Problem]]


def test_a_value_is_changed(base: str) -> None:
    file = parse_scenario(base, overrides=["cluster.replicas[e].count=3"]).file
    assert file.cluster.replicas["e"].count == 3


def test_what_is_not_there_is_added(base: str) -> None:
    file = parse_scenario(base, overrides=["cluster.delegation.limit=0"]).file
    assert file.cluster.delegation.limit == 0


def test_the_last_of_two_wins(base: str) -> None:
    file = parse_scenario(base, overrides=["name=one", "name=two"]).file
    assert file.name == "two"


def test_items_by_place_and_by_name(base: str) -> None:
    sets = ["traffic.phases[0].duration=1s", "traffic.phases[burst].duration=2s"]
    phases = parse_scenario(base, overrides=sets).file.traffic.phases
    assert [phase.duration for phase in phases] == [1_000_000_000, 2_000_000_000]


def test_every_item(base: str) -> None:
    file = parse_scenario(base, overrides=["cluster.replicas[*].engine.kind=model"]).file
    assert {replica.engine.kind for replica in file.cluster.replicas.values()} == {"model"}


def test_names_with_dots_and_quoted_values(base: str) -> None:
    sets = ["cluster.capabilities[decode.heavy].queue_limit=8", "description='a: b = c'"]
    file = parse_scenario(base, overrides=sets).file
    assert file.cluster.capabilities["decode.heavy"].queue_limit == 8
    assert file.description == "a: b = c"


def test_the_text_is_not_changed(base: str) -> None:
    before = parse_scenario(base)
    changed = parse_scenario(base, overrides=["name=other"])
    assert changed.document.text == before.document.text
    assert before.file.name == "base"


@pytest.mark.parametrize(
    "override",
    [
        "name",
        "=3",
        "a b=3",
        "cluster..x=3",
        "name.x=3",
        "traffic.phases[calmer].duration=1s",
        "traffic.phases[7].duration=1s",
        "name=[1",
        "name=!x y",
    ],
)
def test_overrides_that_cannot_be_applied(problems_with: ProblemsOf, override: str) -> None:
    (problem,) = problems_with(override)
    assert (problem.code, problem.file, problem.line) == ("AS-S050", f"--set {override}", None)


def test_all_wrong_overrides_are_told(problems_with: ProblemsOf) -> None:
    assert len(problems_with("name", "=1")) == 2


def test_a_wrong_value_points_at_the_override(problems_with: ProblemsOf) -> None:
    (problem,) = problems_with("cluster.delegation.limit=5")
    assert problem.file == "--set cluster.delegation.limit=5"
    assert "at most 1" in problem.message


def test_a_file_of_another_shape_is_an_error_not_a_crash() -> None:
    with pytest.raises(ScenarioInvalid):
        parse_scenario("[]", overrides=["a=1"])
