"""An empty world for each command, recorded runs, and processes that must leave nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_world import Cli, Shell, tiny_scenario

from anyserve.core.events import RunEnded, RunStarted
from anyserve.telemetry.log import EventLogWriter
from anyserve.telemetry.runs import RunDirectory, create_run
from anyserve.telemetry.storyteller import Leg, Storyteller


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in; nothing of the user's is seen."""
    for name in ("state", "config", "cwd"):
        (tmp_path / name).mkdir()
    for name in [name for name in os.environ if name.startswith("ANYSERVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


@pytest.fixture
def cli(world: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(world, capsys, dict(os.environ))


@pytest.fixture
def recorded(world: Path) -> RunDirectory:
    """A recorded run of two requests; the second was delegated."""
    now = datetime(2026, 11, 23, 19, 45, 1, tzinfo=UTC)
    run = create_run(world / "runs", "story", 7, now)
    teller = Storyteller()
    teller.register("s1", {"decode": 512})
    teller.register("h1", {"decode.heavy": 2048})
    started = RunStarted(run=run.id, scenario="story", seed=7, planned_requests=2, planned_s=1.0)
    teller.say("player", 0, started)
    teller.request("player/1/1", [Leg("s1")])
    end = teller.request(
        "player/1/2",
        [
            Leg("s1", end="delegate", routed=False),
            Leg("h1", capability="decode.heavy"),
        ],
        intended_ns=50_000_000,
    )
    teller.say("player", end + 1, RunEnded(reason="completed"))
    with EventLogWriter(run.events) as log:
        log.write_all(teller.envelopes)
    resolved = {
        "command": "anyserve up story.yaml --seed 7",
        "seed": 7,
        "expectations": [
            {
                "metric": "requests.completed",
                "op": "==",
                "value": "requests.offered",
                "text": "requests.completed == requests.offered",
            }
        ],
    }
    run.scenario.write_text(json.dumps(resolved))
    return run


@pytest.fixture
def shell(world: Path) -> Iterator[Shell]:
    # A socket's path is short: pytest's own directories are too deep.
    temp = Path(tempfile.mkdtemp(prefix="as-"))
    shell = Shell(world, temp, uuid.uuid4().hex)
    yield shell
    for process in shell.processes:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()
    shutil.rmtree(temp)


@pytest.fixture
def scenario(world: Path) -> Callable[..., Path]:
    """Writes a tiny scenario into the working directory."""

    def write(**changes: Any) -> Path:
        return tiny_scenario(world / "tiny.yaml", **changes)

    return write
