"""The scenario files that ship are valid, by our check and by the published schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from anyserve.core.placement import GpuInfo, plan_placement
from anyserve.errors import StartError
from anyserve.workload.compile import ANY_ENTRY, Compiled, compile_scenario
from anyserve.workload.load import live_problems, load_scenario, parse_scenario
from anyserve.workload.schema_file import MODELINE, SCHEMA_PATH, schema_text

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))
SCHEMA = ROOT / SCHEMA_PATH
AGGREGATE_TOKENS_PER_S = 359
PREFILL_IN_OUTPUT_TOKENS = 0.26
EMBEDDING_IN_OUTPUT_TOKENS = 3.6

by_name = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)


def compiled(name: str, *, seed: int = 1, entry: str | None = None) -> Compiled:
    scenario = load_scenario(ROOT / "scenarios" / f"{name}.yaml")
    return compile_scenario(scenario, seed=seed, entry=entry)


def test_the_ones_we_promise_are_there() -> None:
    names = {path.stem for path in SHIPPED}
    assert names >= {"delegation", "mixed", "laptop", "faults", "burst", "gpu"}


@by_name
def test_valid_and_runnable_live(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert scenario.file.description
    assert scenario.file.expect
    assert live_problems(scenario) == []


@by_name
def test_valid_under_the_published_schema(path: Path) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.validate(data, json.loads(SCHEMA.read_text(encoding="utf-8")))


@by_name
def test_line_1_points_editors_at_the_schema(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == MODELINE
    assert (path.parent / first.partition("$schema=")[2]).resolve() == SCHEMA


@by_name
def test_the_resolved_scenario_is_the_same_scenario(path: Path) -> None:
    scenario = load_scenario(path)
    again = parse_scenario(scenario.to_yaml())
    assert again.file == scenario.file
    jsonschema.validate(scenario.to_plain(), json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_published_schema_is_that_of_the_models() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("entry", [None, ANY_ENTRY])
def test_delegation_expects_what_its_plan_holds(entry: str | None) -> None:
    requests = compiled("delegation", entry=entry).plan.requests
    limit_of_s1 = 512
    stay = [
        one
        for one in requests
        if one.capability == "decode" and one.prompt_tokens + one.max_tokens <= limit_of_s1
    ]
    too_long = [one for one in requests if one.capability == "decode" and one not in stay]
    assert (len(requests), len(stay), len(too_long)) == (24, 12, 4)


@pytest.mark.parametrize(("name", "at_h1"), [("mixed", 15), ("laptop", 27), ("gpu", 48)])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_mixed_expects_what_its_plan_holds(name: str, at_h1: int, seed: int) -> None:
    run = compiled(name, seed=seed)
    heavy = [one for one in run.plan.requests if one.stream in {"reports", "archive"}]
    assert len(heavy) == at_h1
    assert any(
        one.metric == "replicas.h1.completed" and one.value == at_h1 for one in run.expectations
    )


def test_mixed_offers_at_most_40_percent_of_what_was_measured() -> None:
    totals = []
    for seed in range(20):
        plan = compiled("mixed", seed=seed).plan
        burst = next(phase for phase in plan.phases if phase.name == "burst")
        cost = sum(
            one.max_tokens + PREFILL_IN_OUTPUT_TOKENS * one.prompt_tokens
            if one.task == "generate"
            else EMBEDDING_IN_OUTPUT_TOKENS
            for one in plan.requests
            if one.phase == "burst"
        )
        totals.append(cost * 1e9 / (burst.end_ns - burst.start_ns))
    assert sum(totals) / len(totals) <= 0.4 * AGGREGATE_TOKENS_PER_S


def test_real_engines_together_keep_their_caches_small() -> None:
    for name in ("mixed", "delegation"):
        sizes = [replica.engine.kv_cache_gib for replica in compiled(name).cluster.replicas]
        assert max(sizes) <= 1.0


def test_gpu_needs_two_gpus_or_one_with_other_shares() -> None:
    gib = 1 << 30
    gpus = [GpuInfo(index, 8 * gib, 8 * gib - gib // 4) for index in range(2)]
    path = ROOT / "scenarios" / "gpu.yaml"
    as_shipped = compiled("gpu").cluster.replicas
    note = next(line for line in path.read_text().splitlines() if "--set" in line)
    override = note.partition("--set '")[2].rstrip("'")
    smaller = compile_scenario(load_scenario(path, [override]), seed=0).cluster.replicas

    placed = plan_placement(as_shipped, gpus)
    assert {one.id: placed.devices[one.id].visible for one in as_shipped} == {
        "s1": "1",
        "s2": "1",
        "h1": "0",
    }
    with pytest.raises(StartError, match="not enough GPU memory"):
        plan_placement(as_shipped, gpus[:1])
    assert len(plan_placement(smaller, gpus[:1]).devices) == 3


def test_mixed_and_laptop_have_the_same_shape() -> None:
    mixed, laptop = compiled("mixed").cluster, compiled("laptop").cluster
    assert [one.id for one in mixed.replicas] == [one.id for one in laptop.replicas]
    assert [one.offers for one in mixed.replicas] == [one.offers for one in laptop.replicas]
    assert mixed.ladder == laptop.ladder
    assert {one.engine.kind for one in laptop.replicas} == {"model"}
