"""The shipped handlers on real engines: a meaningful ranking, a summary and its vector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT_S = 280
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(WAIT_S + 60)]

DOCUMENTS = [
    "The parliament met on Tuesday to vote on the budget.",
    "Steep the leaves for two minutes in water that does not boil.",
    "The train to the coast leaves from platform four.",
]


class World:
    """Commands in a directory and a state of their own."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.env = {**os.environ, "XDG_STATE_HOME": str(cwd / "state"), "NO_COLOR": "1"}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "anyserve.cli", *words],
            cwd=self.cwd,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.run("down", "--kill")


def test_the_reranker_understands_what_is_asked(world: World) -> None:
    up = world.run("up", str(EXAMPLES / "reranker.yaml"), "--engine", "vllm", "--keep")
    assert up.returncode == 0, up.stderr + up.stdout
    assert "3 of 3 expectations met" in up.stdout

    question = {"query": "how do I make green tea", "documents": DOCUMENTS, "top_n": 2}
    sent = world.run("send", "-c", "rerank", "--json-payload", json.dumps(question))
    assert sent.returncode == 0, sent.stderr
    best, second = json.loads(sent.stdout)["results"]
    assert best["index"] == 1
    assert best["score"] > second["score"] + 0.1


def test_the_pipeline_summarises_and_embeds(world: World) -> None:
    up = world.run("up", str(EXAMPLES / "pipeline.yaml"), "--engine", "vllm", "--keep")
    assert up.returncode == 0, up.stderr + up.stdout
    assert "4 of 4 expectations met" in up.stdout

    document = {"text": "Tea came to Europe by ship. It was a medicine at first.", "words": 12}
    sent = world.run("send", "-c", "digest", "--json-payload", json.dumps(document))
    assert sent.returncode == 0, sent.stderr
    digest = json.loads(sent.stdout)
    assert len(digest["embedding"]) == 384
    assert digest["summary"].strip()
    live = world.run("send", "-c", "digest.live", "--json-payload", json.dumps(document))
    pieces = [json.loads(line) for line in live.stdout.splitlines()]
    assert "".join(piece.get("text", "") for piece in pieces) == digest["summary"]
    assert pieces[-1]["embedding"] == pytest.approx(digest["embedding"], abs=1e-4)
