"""A user's routing policy: the shipped example live, and what is said of one that cannot run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Cli, Shell

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = "shortest_work:ShortestWork"


def test_the_example_runs_live_and_says_why_it_chose(shell: Shell) -> None:
    result = shell.run("up", str(EXAMPLES / "shortest_work.yaml"), "--duration", "1s")

    assert result.code == 0, result.err
    assert f"policy {NAME} from {EXAMPLES / 'shortest_work.py'}" in result.err
    assert "2 of 2 expectations met" in result.out
    log = (shell.cwd / "runs" / "latest" / "events.jsonl").read_text()
    events = [json.loads(line)["event"] for line in log.splitlines()]
    routed = [event for event in events if event["type"] == "request.routed"]
    assert len(routed) > 5
    assert {event["policy"] for event in routed} == {NAME}
    assert all(event["reason"].startswith("least work, ") for event in routed)
    assert {event["replica"] for event in routed} == {"d-1", "d-2", "d-3"}
    for event in routed:
        scores = {one["replica"]: one["score"] for one in event["candidates"]}
        assert scores[event["replica"]] == min(scores.values())

    trace = shell.run("trace", "1")
    assert f"{NAME} chose d-" in trace.out
    assert ": least work, 0 tokens left (" in trace.out
    shell.assert_clean()


MODULES = {
    "broken": "raise RuntimeError('no luck')",
    "leaves": "import sys\nsys.exit(0)",
    "ctor": "class Mine:\n    def __init__(self, rng, options):\n        options['depth']",
    "unfit": "class Mine:\n    pass",
    "blind": "class Mine:\n    def __init__(self, rng, options): pass",
    "short": "class Mine:\n    def __init__(self, rng, options): pass\n"
    "    def choose(self, view): pass",
    "slow": "class Mine:\n    def __init__(self, rng, options): pass\n"
    "    async def choose(self, request, view): pass",
    "value": "Mine = 3",
}


@pytest.mark.parametrize(
    ("policy", "code", "said", "hint"),
    [
        ("absent:Mine", "plugin_missing", "no module 'absent'", "beside the scenario"),
        ("unfit:Mien", "plugin_missing", "has no 'Mien'", "did you mean 'Mine'?"),
        ("broken:Mine", "plugin_failed", "RuntimeError: no luck", "broken.py:1"),
        ("leaves:Mine", "plugin_failed", "SystemExit: 0", "leaves.py:2"),
        ("ctor:Mine", "plugin_failed", "KeyError: 'depth'", "ctor.py:3"),
        ("unfit:Mine", "plugin_failed", "takes no arguments", ""),
        ("value:Mine", "plugin_shape", "value of type int", "value.py"),
        ("blind:Mine", "plugin_shape", "has no method choose", "choose(self, request, view)"),
        ("short:Mine", "plugin_shape", "choose(view) does not take", "choose(self, request, view)"),
        ("slow:Mine", "plugin_shape", "choose is async", "choose(self, request, view)"),
    ],
)
def test_one_that_cannot_run_exits_2_before_anything_starts(
    policy: str, code: str, said: str, hint: str, cli: Cli, scenario: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    scenario()
    for name, text in MODULES.items():
        (cli.cwd / f"own_{name}.py").write_text(text)
        monkeypatch.delitem(__import__("sys").modules, f"own_{name}", raising=False)
    result = cli("up", "tiny.yaml", "--set", f"cluster.scheduler.policy=own_{policy}")

    assert (result.code, result.out) == (2, "")
    line, *rest = [line for line in result.err.splitlines() if line.startswith(("error", "help"))]
    assert line.startswith(f"error[{code}]: ")
    assert said.replace("'absent'", "'own_absent'") in line
    assert hint in "".join(rest)
    assert not (cli.cwd / "runs").exists()


def test_one_that_a_loaded_module_hides_is_told_so(cli: Cli, scenario: Callable[..., Path]) -> None:
    scenario()
    shutil.copy(EXAMPLES / "shortest_work.py", cli.cwd / "random.py")
    result = cli("up", "tiny.yaml", "--set", "cluster.scheduler.policy=random:ShortestWork")

    assert result.code == 2
    assert "the random.py beside the scenario is hidden by it; give yours another" in result.err


def test_checking_does_not_run_it(cli: Cli, scenario: Callable[..., Path]) -> None:
    scenario()
    (cli.cwd / "own_side_effect.py").write_text("open('ran', 'w').close()")
    policy = "cluster.scheduler.policy=own_side_effect:Mine"

    assert cli("up", "tiny.yaml", "--dry-run", "--set", policy).code == 0
    assert not (cli.cwd / "ran").exists()
