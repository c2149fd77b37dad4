"""Compiling for what was seen: which compiler can, and what it is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anyserve.compiled.store import Build
from anyserve.compiled.tuning import TRAINING, Tuning, need_gcc
from anyserve.errors import AnyServeError, MissingDependencyError
from anyserve.workload.compile import compile_scenario
from anyserve.workload.load import load_scenario


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no GCC")
def test_gcc_can() -> None:
    need_gcc(["gcc"])


def test_another_compiler_cannot(tmp_path: Path) -> None:
    clang = tmp_path / "clang"
    clang.write_text("#!/bin/sh\necho '#define __GNUC__ 4'\necho '#define __clang__ 1'\n")
    clang.chmod(0o755)
    with pytest.raises(MissingDependencyError, match="only GCC"):
        need_gcc([str(clang)])


def test_what_is_watched_is_a_valid_scenario_of_more_than_one_kind_of_request() -> None:
    plan = compile_scenario(load_scenario(TRAINING), seed=0).plan

    assert len({request.stream for request in plan.requests}) > 1
    assert len(plan.requests) > 1_000


def test_a_simulation_that_does_not_run_compiled_is_no_training(tmp_path: Path) -> None:
    tuning = Tuning(tmp_path)
    made = tmp_path / "made"
    made.mkdir()
    tuning.store.add(Build("another", "group", {}, "1.0", 1.0, tuned=True), made)
    with pytest.raises(AnyServeError, match="to be watched failed"):
        tuning.watch()
