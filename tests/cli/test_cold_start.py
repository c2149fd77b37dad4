"""`anyserve --help` must answer at once: it may load nothing but typer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyserve.cli.app import MODULES, make_command

HEAVY = (
    "textual", "vllm", "torch", "numpy", "pydantic", "rich", "gmqtt", "aiomqtt", "yaml", "msgspec",
    "psutil", "asyncio", "transformers", "tokenizers",
)  # fmt: skip
ROOT = Path(__file__).parents[2]
CODE = """
import sys
from pathlib import Path
from anyserve.cli.main import main
code = main(sys.argv[1:])
print(*sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("words", [["--help"], ["up", "--help"], ["--version"]])
def test_help_and_version_load_no_engine_and_no_screen(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True
    )

    forbidden = HEAVY if "--help" in words else ("textual", "vllm", "torch", "rich", "pydantic")
    assert set(done.stderr.split()) & set(forbidden) == set()
    assert done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["tui", "--replay", "nowhere", "--at", "1:05", "--hz", "4"],
        ["tui", "--theme", "nord"],
        ["status", "--json"],
        ["explain", "queue_full"],
    ],
    ids=lambda words: words[0],
)
def test_text_is_taken_as_it_is_given_without_pydantic(words: list[str], tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )

    loaded = set(done.stderr.split())
    assert "typer" in loaded
    assert ("pydantic" in loaded) == ("--hz" in words)  # text that is to be a number needs it


def test_the_table_of_commands_names_each_of_them() -> None:
    assert sorted(make_command().commands) == sorted(MODULES)


@pytest.mark.parametrize("word", MODULES)
def test_a_call_that_names_a_command_gets_only_what_its_module_has(word: str) -> None:
    alone = list(make_command(word).commands)

    assert word in alone
    assert {MODULES[name] for name in alone} == {MODULES[word]}


def test_a_simulation_loads_nothing_that_runs_live(tmp_path: Path) -> None:
    """It starts in a quarter of a second of CPU; the live side alone would be half as much."""
    words = ["sim", "scenarios/delegation.yaml", "--ui", "none", "--runs", str(tmp_path)]
    code = CODE.replace('if "." not in name', 'if name.count(".") < 2')
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=ROOT
    )

    loaded = set(done.stderr.split())
    assert "anyserve.sim" in loaded
    assert loaded & {"anyserve.runtime", "anyserve.tui", "asyncio", "rich"} == set()


def test_a_simulation_begins_without_numpy() -> None:
    """Its summary is made with it, at the end."""
    code = "import sys, anyserve.cli.sim.command; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
