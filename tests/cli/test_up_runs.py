"""`anyserve up` on real processes with the echo engine: outcomes, exit codes, and nothing left."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Shell


def test_a_run_as_expected_exits_0_and_leaves_its_record_only(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = shell.run("up", "tiny.yaml", "--seed", "3")

    assert result.code == 0, result.err
    assert "7 offered · 7 completed · 2 delegated" in result.out
    assert "1 of 1 expectations met" in result.out
    for step in ("broker", "scheduler", "replica s1", "replica h1"):
        assert f"✔ {step}" in result.err
    assert "again    anyserve up tiny.yaml --seed 3" in result.err
    latest = shell.cwd / "runs" / "latest"
    summary = json.loads((latest / "summary.json").read_text())
    assert summary["complete"]
    assert summary["delegations"]["max_per_request"] == 1
    assert summary["machine"]["engines"] == ["echo"]
    assert not list(latest.glob("origin-*"))
    shell.assert_clean()


def test_a_failed_expectation_exits_1(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario(expect="requests.completed == 3")
    result = shell.run("up", "tiny.yaml")

    assert result.code == 1, result.err
    assert "✘ requests.completed == 3  (was 7)" in result.out
    shell.assert_clean()


def test_json_says_every_event_and_the_summary_last(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    result = shell.run("up", "tiny.yaml", "--ui", "json")

    assert result.code == 0, result.err
    *events, summary = [json.loads(line) for line in result.out.splitlines()]
    kinds = [event["event"]["type"] for event in events]
    assert kinds.count("request.outcome") == 7
    assert {"run.started", "replica.changed", "run.ended"} <= set(kinds)
    assert summary["schema"] == "anyserve.summary/1"
    assert summary["as_expected"] is True


def test_ui_none_is_silent_where_all_is_well(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario()
    result = shell.run("up", "tiny.yaml", "--ui", "none")

    assert (result.code, result.out, result.err) == (0, "", "")


def test_every_entry_has_the_same_outcomes(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario()
    result = shell.run("up", "tiny.yaml", "--entry", "any", "--json", "--record-text")

    assert result.code == 0, result.err
    requests = json.loads(result.out)["requests"]
    assert (requests["offered"], requests["completed"]) == (7, 7)
    texts = (shell.cwd / "runs" / "latest" / "texts.jsonl").read_text()
    assert len(texts.splitlines()) == 7


def test_a_broker_that_is_not_there_exits_3_and_leaves_nothing(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: nobody answers there
        url = f"mqtt://127.0.0.1:{taken.getsockname()[1]}"
        result = shell.run("up", "tiny.yaml", "--set", f"cluster.broker.url={url}")

    assert (result.code, result.out) == (3, "")
    assert "error[broker_unreachable]: no broker answers at" in result.err
    assert "help:" in result.err
    shell.assert_clean()


def test_a_missing_model_exits_5_before_anything_starts(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    engine = "cluster.replicas.s1.engine={kind: vllm, model: gpt-17}"
    result = shell.run("up", "tiny.yaml", "--set", engine, "--no-memory-check")

    assert (result.code, result.out) == (5, "")
    assert "error[model_unknown]" in result.err
    assert not (shell.cwd / "runs").exists()
    shell.assert_clean()


def test_too_little_memory_exits_3_and_shows_the_sum(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    engine = "cluster.replicas.s1.engine={kind: vllm, model: smollm2-135m, kv_cache_gib: 900}"
    result = shell.run("up", "tiny.yaml", "--set", engine)

    assert (result.code, result.out) == (3, "")
    assert "not enough memory: s1 901.0 = 901.0 GiB needed" in result.err
    assert not (shell.cwd / "runs").exists()


def test_runs_that_cannot_be_written_exit_3(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario()
    (shell.cwd / "file").write_text("")
    result = shell.run("up", "tiny.yaml", "--runs", "file")

    assert (result.code, result.out) == (3, "")
    assert "choose another place with --runs DIR" in result.err


@pytest.mark.timeout(120)
def test_a_kept_cluster_answers_until_it_is_stopped(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    up = shell.run("up", "tiny.yaml", "--keep", "--ui", "none")
    assert (up.code, up.err) == (0, "")

    status = json.loads(shell.run("status", "--json").out)["clusters"]
    assert [(one["cluster"], one["state"], one["kept"]) for one in status] == [
        ("tiny", "idle", True)
    ]
    again = shell.run("up", "tiny.yaml")
    assert again.code == 3
    assert "a cluster named tiny runs already" in again.err
    run = status[0]["run_dir"].rpartition("/")[2]
    assert "still writes to" in shell.run("runs", "rm", run, "--yes").err

    sent = shell.run("send", "hello", "-c", "decode", "--entry", "s1", "--max-tokens", "5")
    assert (sent.code, sent.out) == (0, "hello\n")
    answer = json.loads(
        shell.run("send", "ab", "-c", "decode.heavy", "--entry", "s1", "--json").out
    )
    assert (answer["outcome"], answer["served_by"]) == ("completed", "h1")
    unknown = shell.run("send", "x", "-c", "vision")
    assert unknown.code == 2
    assert "it offers: decode, decode.heavy" in unknown.err

    watched = shell.run("watch", "--count", "3")
    assert watched.code == 0
    assert "registration" in watched.out
    assert "→ all" in watched.out
    raw = shell.run("watch", "--count", "3", "--raw")
    assert any(line.startswith("replica/s1/reg [{") for line in raw.out.splitlines())

    down = shell.run("down", "tiny", "--json")
    assert (down.code, json.loads(down.out)["stopped"]) == (0, "tiny")
    shell.assert_clean()


def test_on_a_terminal_every_line_stands_alone(shell: Shell, scenario: Callable[..., Path]) -> None:
    scenario()
    screen = shell.run_on_terminal("up", "tiny.yaml", "--ui", "plain")

    lines = [line.rstrip() for line in screen]
    assert any(line.endswith("✔ scheduler") and line.split()[1] == "s" for line in lines)
    assert not [line for line in lines if "starting" in line and "✔" in line]
    assert "1 of 1 expectations met" in lines


@pytest.mark.timeout(120)
def test_cluster_without_traffic_serves_clients_until_it_is_taken_down(
    shell: Shell, scenario: Callable[..., Path]
) -> None:
    scenario()
    up = shell.run("up", "tiny.yaml", "--no-traffic", "--keep", "--set", "ingress.http=0")
    assert up.code == 0, up.err
    assert "no traffic" in up.err
    (cluster,) = json.loads(shell.run("status", "--json").out)["clusters"]
    (door,) = cluster["doors"]
    assert door["http"] in up.err
    body = json.dumps({"prompt": "hello", "max_tokens": 5}).encode()
    asked = urllib.request.Request(
        f"{door['http']}/v1/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        assert json.load(answer)["choices"][0]["text"] == "hello"
    assert shell.run("down", "tiny").code == 0
    shell.assert_clean()
