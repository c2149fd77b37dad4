"""`anyserve export` and `anyserve report` over a recorded run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from cli_world import Cli

from anyserve.telemetry.runs import RunDirectory


def test_rows_go_to_standard_output(cli: Cli, recorded: RunDirectory) -> None:
    said = cli("export", recorded.id, "--format", "csv")

    assert said.code == 0
    assert [row["id"] for row in csv.DictReader(io.StringIO(said.out))] == [
        "player/1/1", "player/1/2",
    ]  # fmt: skip
    assert "wrote 2 requests" in said.err


def test_json_lines(cli: Cli, recorded: RunDirectory) -> None:
    lines = cli("export", "--format", "jsonl").out.splitlines()

    assert [json.loads(line)["delegations"] for line in lines] == [0, 1]


def test_a_trace_goes_to_a_file(cli: Cli, recorded: RunDirectory, world: Path) -> None:
    said = cli("export", "-f", "perfetto", "-o", "trace.json")

    assert (said.code, said.out) == (0, "")
    assert json.loads((world / "trace.json").read_text())["traceEvents"]
    assert [path.name for path in world.iterdir() if "part" in path.name] == []


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("--format", "xml"), "unknown_format", "csv, jsonl, perfetto, otlp"),
        (("--format", "csv", "--endpoint", "http://x"), "usage", ""),
        (("--format", "otlp", "-o", "x"), "usage", "--endpoint URL"),
        (("--format", "csv", "-o", "no/such/place.csv"), "cannot_write", ""),
    ],
)
def test_words_that_do_not_fit(
    cli: Cli, recorded: RunDirectory, words: tuple[str, ...], code: str, hint: str
) -> None:
    said = cli("export", "latest", *words)

    assert said.code == 2
    assert code in said.err
    assert hint in said.err
    assert said.out == ""


def test_nobody_takes_the_spans(cli: Cli, recorded: RunDirectory) -> None:
    said = cli("export", "-f", "otlp", "--endpoint", "http://127.0.0.1:9")

    assert said.code == 3
    assert "otlp_refused" in said.err


def test_a_report_is_one_page(cli: Cli, recorded: RunDirectory) -> None:
    said = cli("report", "--json")

    assert said.json["run"] == recorded.id
    assert Path(said.json["path"]) == recorded.report
    assert "2 / 2" in recorded.report.read_text()


def test_a_report_goes_where_it_is_told(cli: Cli, recorded: RunDirectory, world: Path) -> None:
    assert cli("report", "latest", "-o", "mine.html").out.strip() == str(world / "mine.html")
    assert cli("report", "-o", "-").out == (world / "mine.html").read_text()


def test_showing_a_run_writes_its_report_too(cli: Cli, recorded: RunDirectory) -> None:
    said = cli("runs", "show")

    assert f"report   {recorded.report}" in said.err
    assert recorded.report.exists()
