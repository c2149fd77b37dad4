from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anyserve.errors import AnyServeError
from anyserve.telemetry.runs import (
    create_run,
    list_runs,
    open_run,
    point_latest,
    run_ids,
    safe_name,
)

NOW = datetime(2026, 11, 23, 19, 45, 1, tzinfo=UTC)


def test_a_run_is_named_by_time_scenario_and_seed(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", "scenarios/Mixed Load.yaml", 7, NOW)
    assert run.id == "20261123-194501-mixed-load-7"
    assert run.logs.is_dir()
    assert run.scenario.name == "scenario.resolved.json"
    assert (tmp_path / "runs" / "latest").resolve() == run.path


def test_times_are_utc_wherever_the_clock_stands(tmp_path: Path) -> None:
    zone = datetime.fromisoformat("2026-11-23T20:45:01+01:00")
    assert create_run(tmp_path, "a", 1, zone).id == "20261123-194501-a-1"


def test_two_runs_in_one_second_do_not_share_a_directory(tmp_path: Path) -> None:
    first, second = (create_run(tmp_path, "a", 1, NOW) for _ in range(2))
    assert second.id == first.id + ".2"
    assert run_ids(tmp_path) == [first.id, second.id]
    assert open_run(tmp_path).id == second.id


def test_unwritable_root_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnyServeError, match="cannot make the run directory") as caught:
        create_run(tmp_path / "file", "a", 1, NOW)
    assert "--runs" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("mixed.yaml", "mixed"),
        ("../../etc/passwd", "passwd"),
        ("ÜBER große.yml", "ber-gro-e"),
        ("", "run"),
        ("...", "run"),
        ("x" * 99, "x" * 48),
    ],
)
def test_names_become_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_latest_moves_on_and_a_real_directory_is_left_alone(tmp_path: Path) -> None:
    first = create_run(tmp_path, "a", 1, NOW)
    second = create_run(tmp_path, "a", 1, NOW + timedelta(seconds=1))
    assert open_run(tmp_path, "latest").id == second.id
    point_latest(tmp_path, first.id)
    assert open_run(tmp_path).id == first.id
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").mkdir()
    point_latest(tmp_path, first.id)
    assert not (tmp_path / "latest").is_symlink()


def test_without_the_symlink_the_newest_run_is_latest(tmp_path: Path) -> None:
    create_run(tmp_path, "a", 1, NOW)
    newest = create_run(tmp_path, "b", 1, NOW + timedelta(seconds=1))
    (tmp_path / "latest").unlink()
    assert open_run(tmp_path).id == newest.id


def test_runs_open_by_id_prefix_and_path(tmp_path: Path) -> None:
    run = create_run(tmp_path, "mixed", 7, NOW)
    create_run(tmp_path, "mixed", 8, NOW + timedelta(hours=1))
    run.events.write_bytes(b"")
    assert open_run(tmp_path, run.id).path == run.path
    assert open_run(tmp_path, "20261123-1945").id == run.id
    assert open_run(tmp_path / "elsewhere", run.path).path == run.path.resolve()
    assert open_run(tmp_path / "elsewhere", run.events).path == run.path.resolve()


def test_ambiguous_and_unknown_names_list_what_is_near(tmp_path: Path) -> None:
    mixed = create_run(tmp_path, "mixed", 7, NOW)
    create_run(tmp_path, "laptop", 7, NOW)
    with pytest.raises(AnyServeError, match="2 runs begin") as caught:
        open_run(tmp_path, "20261123")
    assert mixed.id in caught.value.hint
    with pytest.raises(AnyServeError, match="no run 'mixed'") as caught:
        open_run(tmp_path, "mixed")
    assert caught.value.hint == f"nearest: {mixed.id}"
    assert caught.value.code == "unknown_run"
    with pytest.raises(AnyServeError) as caught:
        open_run(tmp_path, "zzz")
    assert mixed.id in caught.value.hint


def test_an_empty_root_says_how_to_make_a_run(tmp_path: Path) -> None:
    with pytest.raises(AnyServeError, match="no runs in") as caught:
        open_run(tmp_path / "none")
    assert "anyserve up" in caught.value.hint
    with pytest.raises(AnyServeError) as caught:
        open_run(tmp_path, "x")
    assert "anyserve up" in caught.value.hint


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnyServeError, match="is not a run directory"):
        open_run(tmp_path, tmp_path)


def test_the_list_reads_summaries_and_forgives_broken_ones(tmp_path: Path) -> None:
    good = create_run(tmp_path, "good", 1, NOW)
    create_run(tmp_path, "none", 1, NOW + timedelta(seconds=1))
    broken = create_run(tmp_path, "torn", 1, NOW + timedelta(seconds=2))
    good.summary.write_text('{"seed":1,"complete":true,"requests":{"offered":4,"completed":3}}')
    broken.summary.write_text('{"seed":')
    (tmp_path / "notes").mkdir()
    briefs = list_runs(tmp_path)
    assert [(one.seed, one.complete, one.offered, one.completed) for one in briefs] == [
        (1, True, 4, 3),
        (None, None, None, None),
        (None, None, None, None),
    ]
    assert briefs[0].started == "2026-11-23T19:45:01+00:00"


def test_the_compressed_log_is_found(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", 1, NOW)
    assert run.events.name == "events.jsonl"
    (run.path / "events.jsonl.zst").write_bytes(b"")
    assert run.events.name == "events.jsonl.zst"
