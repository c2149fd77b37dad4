"""No file, however broken, ends in anything but a list of its problems."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import Scenario, parse_scenario
from anyserve.workload.problems import Problem, ScenarioInvalid, render, to_dicts

ROOT = Path(__file__).parents[2]
TEXTS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "scenarios").glob("*.yaml"))]
TREES = [yaml.safe_load(text) for text in TEXTS]
WORDS = ["decode", "decode.heavy", "s1", "h1", "any", "60s", "auto", "kill", "for", "<<", "name"]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(WORDS),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)


def check(text: str, overrides: tuple[str, ...] = ()) -> None:
    """Either the text is a scenario that compiles, or it has problems that can be shown."""
    scenario = problems = None
    try:
        scenario = parse_scenario(text, overrides=overrides)
    except ScenarioInvalid as invalid:
        problems = invalid.problems
    if scenario is None:
        check_problems(problems, text)
    else:
        check_scenario(scenario)


def check_problems(problems: list[Problem] | None, text: str) -> None:
    assert problems
    assert render(problems).startswith("error[AS-S")
    json.dumps(to_dicts(problems))
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
    for problem in problems:
        assert problem.line is None or problem.source_line == lines[problem.line - 1]


def check_scenario(scenario: Scenario) -> None:
    parse_scenario(scenario.to_yaml())
    requests = sum(
        phase.duration / 1e9 * max((stream.rate or 0) * phase.scale, phase.rates.get(name, 0))
        for phase in scenario.file.traffic.phases
        for name, stream in scenario.file.traffic.streams.items()
    )
    replicas = sum(one.count or 1 for one in scenario.file.cluster.replicas.values())
    if requests < 5_000 and replicas < 1_000:
        compile_scenario(scenario, seed=1)


def ways(tree: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [way] if way else []
    if isinstance(tree, dict):
        items: list[tuple[Any, Any]] = list(tree.items())
    else:
        items = list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        found += ways(value, (*way, key))
    return found


@st.composite
def mutated_trees(draw: st.DrawFn) -> str:
    tree = json.loads(json.dumps(draw(st.sampled_from(TREES))))
    for _ in range(draw(st.integers(1, 3))):
        known = ways(tree)
        if not known:
            break
        *before, last = draw(st.sampled_from(known))
        inside = tree
        for part in before:
            inside = inside[part]
        what = draw(st.sampled_from(["replace", "delete", "add"]))
        if what == "delete":
            del inside[last]
        elif what == "replace":
            inside[last] = draw(values)
        elif isinstance(inside, dict):
            inside[draw(st.sampled_from([*WORDS, "x"]))] = draw(values)
        else:
            inside.append(draw(values))
    return yaml.safe_dump(tree, sort_keys=False)


@st.composite
def mutated_texts(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        gone = draw(st.integers(0, 12))
        put = draw(st.one_of(st.text(max_size=4), st.sampled_from(list("{}[]:,-*&!|>'\"\n\t# <"))))
        text = text[:at] + put + text[at + gone :]
    return text


@settings(max_examples=150)
@given(mutated_trees())
def test_scenarios_with_other_values_in_them(text: str) -> None:
    check(text)


@settings(max_examples=150)
@given(mutated_texts())
def test_scenarios_with_other_characters_in_them(text: str) -> None:
    with contextlib.suppress(UnicodeEncodeError):  # what no file could hold
        text.encode("utf-8")
        check(text)


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(text)


@settings(max_examples=150)
@given(values)
def test_any_data(value: Any) -> None:
    check(yaml.safe_dump(value, allow_unicode=True))


paths = st.lists(
    st.sampled_from(
        ["cluster", "traffic", "replicas", "[s1]", "[*]", "[0]", "phases", "faults", ".", "name"]
    ),
    max_size=5,
).map(".".join)


@settings(max_examples=150)
@given(st.sampled_from(TEXTS), paths, values)
def test_any_override(text: str, path: str, value: Any) -> None:
    check(text, (f"{path}={json.dumps(value)}",))
