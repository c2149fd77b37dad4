"""Wrong words: a sentence that says what to do, the right exit code, nothing on stdout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import Cli

import anyserve.cli.doctor.command as doctor_command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["upp"], "Did you mean 'up'?"),
        (["up"], "Missing argument 'SCENARIO'"),
        (["up", "x.yaml", "--sed", "7"], "--seed"),
        (["up", "x.yaml", "--seed", "seven"], "--seed"),
        (["up", "x.yaml", "--ui", "curses"], "'curses'"),
        (["up", "x.yaml", "--ui", "tui"], "need a terminal"),
        (["tui", "--replay", "latest", "--attach"], "not both"),
        (["tui", "--web", "--control"], "only looks"),
        (["control", "hang", "s1", "--for", "soon"], "--for"),
        (["control", "slow", "s1", "0.5"], "FACTOR"),
        (["control", "drain", "s1"], "no cluster runs here"),
        (["--color", "pink", "status"], "pink"),
        (["status", "--color"], "--color needs a value"),
        (["status", "nobody"], "no cluster named nobody runs here"),
        (["send", "hello"], "no cluster runs here"),
        (["watch"], "no cluster runs here"),
        (["trace", "1"], "no runs in"),
        (["runs", "show"], "no runs in"),
        (["runs", "rm", "x"], "no run 'x'"),
        (["explain", "queue_ful"], "did you mean queue_full?"),
        (["scenario", "list", "nowhere"], "there is no directory nowhere"),
        (["models"], "Usage: anyserve models"),
    ],
)
def test_wrong_words_exit_2_and_say_what_to_do(words: list[str], said: str, cli: Cli) -> None:
    result = cli(*words)

    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_no_words_at_all_show_the_help_and_exit_2(cli: Cli) -> None:
    result = cli()

    assert (result.code, result.out) == (2, "")
    assert "Usage: anyserve" in result.err


def test_an_error_with_json_is_one_object_on_stdout(cli: Cli) -> None:
    result = cli("trace", "1", "--json")

    assert (result.code, result.err) == (2, "")
    assert result.json == {
        "error": {
            "code": "unknown_run",
            "message": f"no runs in {cli.cwd / 'runs'} yet",
            "hint": "make one with: anyserve up SCENARIO; or name their directory with --runs",
            "exit_code": 2,
        }
    }


def test_a_bug_exits_70_and_leaves_a_report(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_machine: object) -> None:
        raise ZeroDivisionError("mqtt://user:geheim@host")

    monkeypatch.setattr(doctor_command, "check_all", fail)
    result = cli("doctor")

    assert (result.code, result.out) == (70, "")
    assert "error[internal]: a bug in AnyServe: ZeroDivisionError" in result.err
    (report,) = (tmp_path / "state" / "anyserve" / "crashes").iterdir()
    assert str(report) in result.err
    text = report.read_text()
    assert "Traceback" in text
    assert "geheim" not in text + result.err


def test_a_reader_that_leaves_is_no_error(world: Path) -> None:
    command = f"{sys.executable} -m anyserve.cli explain; echo code $? >&2"
    done = subprocess.run(
        ["bash", "-c", f"({command}) | true"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )

    assert done.stderr == "code 0\n"
    assert world.is_dir()
