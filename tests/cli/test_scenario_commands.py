"""`anyserve scenario ...` and what else only reads scenario files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Cli

from anyserve.workload.schema_file import schema_data

BROKEN = """\
version: 1
name: broken
cluster:
  capabilties: {decode: {}}
  replicas: {s1: {capabilities: [decode], engine: {kind: magic}}}
traffic:
  phases: [{name: all, duration: 5}]
  streams: {a: {capability: decode, rate: 1, prompt_tokens: 4}}
"""


@pytest.fixture
def broken(world: Path) -> Path:
    path = world / "broken.yaml"
    path.write_text(BROKEN)
    return path


def test_validate_lists_every_problem_with_its_place(cli: Cli, broken: Path) -> None:
    result = cli("scenario", "validate", "broken.yaml")

    assert (result.code, result.out) == (2, "")
    assert "  --> broken.yaml:4:3\n" in result.err
    assert "help: did you mean 'capabilities'?" in result.err
    assert "  --> broken.yaml:7:34\n" in result.err
    assert result.err.count("error[AS-S") == int(result.err.splitlines()[-1].split()[0])


def test_validate_checks_all_files_and_answers_as_json(
    cli: Cli, broken: Path, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = cli("scenario", "validate", "tiny.yaml", "broken.yaml", "--json")

    assert (result.code, result.err) == (2, "")
    good, bad = result.json["scenarios"]
    assert (good["valid"], good["name"], good["problems"]) == (True, "tiny", [])
    assert not bad["valid"]
    assert {"code", "message", "hint", "file", "line", "column", "path"} == set(bad["problems"][0])


def test_up_with_a_broken_scenario_starts_nothing(cli: Cli, broken: Path) -> None:
    result = cli("up", "broken.yaml", "--json")

    assert result.code == 2
    error = result.json["error"]
    assert (error["file"], error["line"]) == ("broken.yaml", 3)
    assert len(error["problems"]) > 1
    assert not (cli.cwd / "runs").exists()


def test_a_fault_on_the_broker_of_somebody_else_is_refused(
    cli: Cli, scenario: Callable[..., Path]
) -> None:
    scenario()
    fault = "faults=[{at: 500ms, restart-broker: {}}]"
    url = "cluster.broker.url=mqtt://127.0.0.1:1"
    result = cli("up", "tiny.yaml", "--set", fault, "--set", url)

    assert (result.code, result.out) == (2, "")
    assert "error[AS-S060]" in result.err


def test_show_is_a_scenario_again(cli: Cli, scenario: Callable[..., Path]) -> None:
    scenario()
    shown = cli("scenario", "show", "tiny.yaml", "--set", "traffic.streams.chat.rate=9")
    (cli.cwd / "again.yaml").write_text(shown.out)
    again = cli("scenario", "show", "again.yaml", "--json")

    assert (shown.code, again.code) == (0, 0)
    assert again.json["traffic"]["streams"]["chat"]["rate"] == 9
    assert again.json["cluster"]["delegation"] == {"limit": 1, "overload": False}


def test_list_names_valid_and_invalid_files(
    cli: Cli, broken: Path, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = cli("scenario", "list", ".", "--json")

    assert {entry["file"]: entry["valid"] for entry in result.json["scenarios"]} == {
        "broken.yaml": False,
        "tiny.yaml": True,
    }
    assert "not valid" in cli("scenario", "list", ".").out


def test_schema_prints_the_schema(cli: Cli) -> None:
    assert json.loads(cli("scenario", "schema").out) == schema_data()


def test_a_dry_run_counts_the_requests_and_starts_nothing(
    cli: Cli, scenario: Callable[..., Path]
) -> None:
    scenario()
    plan = cli("up", "tiny.yaml", "--dry-run", "--json", "--duration", "2s", "--entry", "h1").json

    assert plan["schema"] == "anyserve.plan/1"
    assert plan["traffic"]["requests_by_stream"] == {"chat": 10, "heavy": 4}
    assert plan["traffic"]["requests_by_entry"] == {"h1": 14}
    assert [replica["engine"] for replica in plan["replicas"]] == ["echo", "echo"]
    assert not (cli.cwd / "runs").exists()


def test_a_dry_run_as_text_ends_with_the_command_to_type(
    cli: Cli, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = cli("up", "tiny.yaml", "--dry-run", "--seed", "3", "--engine", "model")

    assert "replica   s1: decode (up to 128 tokens); model, 4 at once" in result.out
    assert result.err == "help: run it with: anyserve up tiny.yaml --seed 3 --engine model\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--duration", "5"], "--duration: '5' is not a duration"),
        (["--duration", "0s"], "longer than 0s"),
        (["--entry", "s9"], "no replica 's9' to enter at"),
        (["--set", "traffic.streams"], "not an override"),
    ],
)
def test_options_that_do_not_fit_exit_2(
    words: list[str], said: str, cli: Cli, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = cli("up", "tiny.yaml", "--dry-run", *words)

    assert (result.code, result.out) == (2, "")
    assert said in result.err
