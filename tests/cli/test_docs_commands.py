"""Every command line in README and docs is one that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.exceptions import TyperException

from anyserve.cli.app import make_command
from anyserve.cli.main import take_global_options

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/)?anyserve (?P<words>.*)$", re.MULTILINE)
INLINE = re.compile(r"`anyserve (?P<words>[^`\n]+ [^`\n]+)`")
"""In running text a command's bare name is no command line."""
ABOUT_ALL = ("COMMAND", "|", "--help", "--install-completion")
"""Words of lines that speak of several commands, or of the shell's own."""


def command_lines(text: str) -> list[str]:
    """What follows `anyserve` in the lines and code of a page, without comments and dots."""
    found = [match["words"] for pattern in (LINE, INLINE) for match in pattern.finditer(text)]
    lines = (re.sub(r"\s#.*$", "", words).replace("...", "").strip() for words in found)
    return [line for line in lines if line and not any(word in line for word in ABOUT_ALL)]


LINES = sorted({line for page in PAGES for line in command_lines(page.read_text())})


def parse(words: Sequence[str]) -> None:
    """Let the real command line read the words, without carrying them out.

    Raises:
        TyperException: it does not take them.
    """
    _, rest = take_global_options(words)
    command: Any = make_command()
    context = command.make_context("anyserve", rest)
    while hasattr(command, "resolve_command"):
        left = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, left)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_line_is_taken(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parse(shlex.split(line.replace("[", "").replace("]", "")))


@pytest.mark.parametrize("line", ["up", "up a.yaml --sed 3", "runs frobnicate", "trace --widht"])
def test_one_that_does_not_fit_would_be_noticed(line: str) -> None:
    with pytest.raises(TyperException):
        parse(line.split())


def test_there_are_many() -> None:
    assert len(LINES) > 20
