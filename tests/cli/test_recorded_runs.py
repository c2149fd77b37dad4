"""Runs and traces over a recorded log."""

from __future__ import annotations

from pathlib import Path

from cli_world import Cli

from anyserve.telemetry.runs import RunDirectory


def test_list_is_empty_where_nothing_was_recorded(cli: Cli) -> None:
    assert cli("runs", "list", "--json").json == {"schema": "anyserve.runs/1", "runs": []}
    said = cli("runs", "list")
    assert (said.code, said.out) == (0, "")
    assert "anyserve up SCENARIO" in said.err


def test_show_reports_what_the_run_came_to(cli: Cli, recorded: RunDirectory) -> None:
    result = cli("runs", "show", recorded.id)

    assert result.code == 0
    assert "2 offered · 2 completed · 1 delegated" in result.out
    assert "1 of 1 expectations met" in result.out
    assert "again    anyserve up story.yaml --seed 7" in result.err


def test_show_as_json_is_the_summary_with_verdicts(cli: Cli, recorded: RunDirectory) -> None:
    shown = cli("runs", "show", "--json").json

    assert shown["schema"] == "anyserve.summary/1"
    assert shown["run"] == recorded.id
    assert shown["as_expected"] is True
    assert [one["verdict"] for one in shown["expectations"]] == ["ok"]


def test_list_knows_a_run_once_it_has_a_summary(cli: Cli, recorded: RunDirectory) -> None:
    assert "no summary" in cli("runs", "list").out
    cli("runs", "show")
    assert f"{recorded.id}  live" in cli("runs", "list").out
    assert "2 of 2 completed" in cli("runs", "list").out


def test_a_trace_shows_the_hop_and_adds_up(cli: Cli, recorded: RunDirectory) -> None:
    result = cli("trace", "2")

    assert result.code == 0
    assert "2 hops" in result.out
    assert "s1 delegated it: too_long, decode→decode.heavy" in result.out
    trace = cli("trace", "2", "--json").json
    assert trace["schema"] == "anyserve.trace/1"
    assert trace["run"] == recorded.id
    assert sum(part["duration_ns"] for part in trace["segments"]) == trace["total_ns"]


def test_ascii_means_ascii_wherever_the_flag_stands(cli: Cli, recorded: RunDirectory) -> None:
    for words in (["trace", "2", "--ascii"], ["--ascii", "runs", "show"]):
        result = cli(*words)
        assert result.code == 0
        assert result.out.isascii()
    assert recorded.events.exists()


def test_recorded_text_stands_below_its_trace(cli: Cli, recorded: RunDirectory) -> None:
    line = '{"id":"player/1/1","capability":"decode","text":"Hello\\nthere"}\n'
    (recorded.path / "texts.jsonl").write_text(line)

    assert cli("trace", "1").out.endswith("\nanswer\n  Hello there\n")
    assert cli("trace", "1", "--json").json["text"] == "Hello\nthere"
    assert "text" not in cli("trace", "2", "--json").json


def test_an_unknown_request_is_a_usage_error(cli: Cli, recorded: RunDirectory) -> None:
    result = cli("trace", "99", "--run", recorded.id[:15])

    assert result.code == 2
    assert "no request '99'" in result.err


def test_rm_wants_a_yes_and_mends_latest(cli: Cli, recorded: RunDirectory) -> None:
    refused = cli("runs", "rm", recorded.id)
    assert refused.code == 2
    assert recorded.path.exists()

    removed = cli("runs", "rm", recorded.id, "--yes", "--json")
    assert removed.json["removed"] == [recorded.id]
    assert not recorded.path.exists()
    assert not (cli.cwd / "runs" / "latest").is_symlink()


def test_runs_may_lie_elsewhere(cli: Cli, recorded: RunDirectory, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    recorded.path.parent.rename(moved)

    assert cli("runs", "show", "--runs", str(moved)).code == 0
    cli.environ["ANYSERVE_RUNS"] = str(moved)
    assert cli("trace", "1").code == 0
