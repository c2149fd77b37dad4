"""Compiled or not, a simulation is the same, byte for byte; and only a build that fits is used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import compiled_runs
import pytest

from anyserve.compiled.store import Store
from anyserve.compiled.use import Standing, look

ROOT = Path(__file__).parents[3]
FEW_OBJECTS = 100
"""Grown caches; a simulation is some thousands."""
OWN_POLICY = '''
class Worst:
    """The fullest one; now and then something that a policy must not do."""

    def __init__(self, rng, options):
        self._rng = rng
        self._count = 0

    def choose(self, request, view):
        from anyserve.core.policies import Choice

        self._count += 1
        if self._count % 11 == 0:
            raise RuntimeError("tired")
        if self._count % 13 == 0:
            return "no choice"
        if self._count % 17 == 0:
            return Choice("nobody", 0.0, "lost")
        drawn = view.sample(2)
        best = max(drawn, key=lambda one: (one.fill, one.waiting, one.kv_usage, one.id))
        scores = {one.id: one.waiting for one in drawn}
        return Choice(best.id, -best.waiting, f"{len(view)} there, {len(list(view))} seen", scores)


class Steps:
    def step_ps(self, work):
        return 9_000_000_000 + 1_000_000 * (work.prefill_tokens + 7 * work.decodes)
'''


def played(store: str, scenarios: list[Path]) -> dict[str, Any]:
    command = [sys.executable, "-P", compiled_runs.__file__, store, *map(str, scenarios)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def own_scenario(folder: Path) -> Path:
    """Interpreted classes of a user between compiled ones."""
    (folder / "own.py").write_text(OWN_POLICY)
    path = folder / "own.yaml"
    path.write_text(
        """
version: 1
name: own
cluster:
  capabilities:
    decode: {upgrade: decode.heavy}
    decode.heavy: {}
  scheduler: {policy: "own:Worst"}
  replicas:
    d:
      count: 3
      capabilities: [decode]
      concurrency: 2
      engine: &engine {kind: model, profile: "own:Steps"}
    h:
      capabilities: [decode.heavy]
      concurrency: 2
      engine: *engine
traffic:
  phases: [{name: all, duration: 20s}]
  streams:
    any: {capability: decode, rate: 6, prompt_tokens: 30, output_tokens: 12}
    up: {capability: decode.heavy, entry: any, rate: 1, prompt_tokens: 30, output_tokens: 12}
"""
    )
    return path


@pytest.mark.timeout(600)  # the first test that needs it makes the build
def test_the_log_of_a_compiled_run_is_that_of_an_interpreted_one(
    build_store: Store, tmp_path: Path
) -> None:
    scenarios = [*sorted((ROOT / "scenarios").glob("*.yaml")), own_scenario(tmp_path)]
    scenarios.append(ROOT / "scenarios" / "sim" / "closed-loop.yaml")
    compiled, interpreted = played(str(build_store.root), scenarios), played("-", scenarios)

    assert (compiled["compiled"], interpreted["compiled"]) == (True, False)
    assert compiled["logs"] == interpreted["logs"]
    assert compiled["speed"] == interpreted["speed"]
    assert "Scale(" in compiled["speed"]
    assert max(compiled["left_behind"], interpreted["left_behind"]) < FEW_OBJECTS
    assert not any(" after " in log for log in compiled["logs"].values())
    assert len(set(compiled["logs"].values())) == len(scenarios)


@pytest.mark.timeout(600)
def test_a_build_serves_no_other_sources(build_store: Store, tmp_path: Path) -> None:
    """What was built from one state of the sources is not used for another."""
    standing, build = look({}, build_store)
    assert standing is Standing.IN_USE
    assert build is not None
    store = Store(tmp_path)
    shutil.copytree(build_store.folder(build.key), store.folder("f" * len(build.key)))

    found = played(str(store.root), [ROOT / "scenarios" / "burst.yaml"])
    assert found["compiled"] is False
