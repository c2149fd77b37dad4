"""The shipped scenarios as a user runs them: `anyserve up` on real vLLM with the demo models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.engines.detect import detect

ROOT = Path(__file__).parents[2]
MARK = "ANYSERVE_TEST_MARK"
UP_S = 420.0


class Run:
    """One `anyserve up` that is over, and what it left."""

    def __init__(self, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.folder = folder
        self.done = done

    @property
    def summary(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "latest/summary.json").read_text())
        return loaded


def anyserve(
    *words: str, env: dict[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "anyserve", *words],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def up(scenario: str, folder: Path, *more: str) -> Run:
    """Run a shipped scenario to its end, and see that no process is left."""
    if detect().engine is not EngineKind.VLLM:
        pytest.skip(detect().reason)
    mark = str(folder)
    words = ("up", f"scenarios/{scenario}.yaml", "--ui", "plain", "--record-text", *more)
    done = anyserve(*words, "--runs", str(folder), env={MARK: mark}, timeout_s=UP_S)
    left = [process.pid for process in psutil.process_iter() if _has_mark(process, mark)]
    assert not left, left
    return Run(folder, done)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


class ShippedScenarios:
    """What must come of them on any device; a directory of tests gives the fixture `delegation`."""

    def test_what_s1_cannot_serve_is_delegated_once_and_served(self, delegation: Run) -> None:
        assert delegation.done.returncode == 0, delegation.done.stderr
        requests = delegation.summary["requests"]
        assert requests["completed"] == requests["offered"] == 24
        assert delegation.summary["delegations"]["max_per_request"] == 1
        assert delegation.summary["delegations"]["total"] == 12
        assert delegation.summary["machine"]["engines"] == ["vllm"]
        assert "5 of 5 expectations met" in delegation.done.stdout

    def test_the_trace_shows_entry_hop_and_the_words_of_the_model(self, delegation: Run) -> None:
        lines = (delegation.folder / "latest/texts.jsonl").read_text().splitlines()
        texts = [json.loads(line) for line in lines]
        heavy = next(text for text in texts if text["capability"] == "decode.heavy")
        assert len(heavy["text"].split()) > 3

        words = ("trace", heavy["id"], "--run", "latest", "--runs", str(delegation.folder))
        shown = anyserve(*words, env={}, timeout_s=60)

        assert shown.returncode == 0, shown.stderr
        for part in (
            "player→s1",
            "s1→scheduler",
            "delegate: not_registered",
            "scheduler→h1",
            "decode",
        ):
            assert part in shown.stdout
        assert heavy["text"].split()[-1] in shown.stdout

    def test_played_again_in_virtual_time_it_is_as_fast_as_it_was(self, delegation: Run) -> None:
        words = ("sim", "--from-run", str((delegation.folder / "latest").resolve()), "--json")
        again = anyserve(*words, "--runs", str(delegation.folder / "again"), env={}, timeout_s=60)

        assert again.returncode == 0, again.stderr
        assert "was: a message takes" in again.stderr
        live, simulated = delegation.summary, json.loads(again.stdout)
        assert simulated["delegations"]["total"] == live["delegations"]["total"]
        for figure in ("tpot", "e2e"):
            there, here = live[figure]["p50_ms"], simulated[figure]["p50_ms"]
            assert here == pytest.approx(there, rel=0.25), figure

    def test_mixed_traffic_on_four_engines_meets_its_expectations(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        run = up("mixed", tmp_path_factory.mktemp("mixed"))
        assert run.done.returncode == 0, run.done.stdout + run.done.stderr
        requests = run.summary["requests"]
        assert requests["completed"] == requests["offered"] > 100
        assert run.summary["delegations"]["max_per_request"] == 1
        assert run.summary["complete"]
