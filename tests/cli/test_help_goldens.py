"""The text of every `--help`: a change of it is a change that somebody must look at.

`ANYSERVE_REWRITE_GOLDENS=1 pytest tests/cli/test_help_goldens.py` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_world import Cli

from anyserve.cli.app import make_command

GOLDENS = Path(__file__).parent / "goldens"
COMMANDS = [
    "", "up", "sim", "compare", "sweep", "plan", "compile", "calibrate", "send", "status", "down",
    "watch", "trace", "tui", "report", "export", "doctor", "explain", "broker", "scheduler",
    "replica", "ingress", "worker", "runs", "runs list",
    "runs show", "runs rm", "scenario", "scenario validate", "scenario show", "scenario list",
    "scenario schema", "models", "models list", "models prepare", "config", "config show",
    "config path", "control", "control drain", "control resume", "control kill", "control hang",
    "control slow", "control rate", "control restart", "control partition", "control drop",
    "control duplicate", "control delay", "control mend",
]  # fmt: skip
REWRITE = "ANYSERVE_REWRITE_GOLDENS" in os.environ


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_the_one_that_was_looked_at(command: str, cli: Cli) -> None:
    result = cli(*command.split(), "--help")

    assert (result.code, result.err) == (0, "")
    golden = GOLDENS / f"{command.replace(' ', '-') or 'anyserve'}.txt"
    if REWRITE:
        golden.write_text(result.out)
    assert result.out == golden.read_text()


def test_every_command_has_a_golden() -> None:
    assert sorted(_paths(make_command(), ())) == sorted(COMMANDS)


def _paths(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    yield " ".join(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from _paths(inner, (*path, name))
