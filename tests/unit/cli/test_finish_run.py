"""One log out of several, a summary, verdicts; the same whoever recorded the events."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from anyserve.cli import finish
from anyserve.cli.finish import finish_run, read_resolved
from anyserve.cli.run_events import load_events
from anyserve.core.events import Envelope, RunEnded, RunStarted
from anyserve.errors import UsageError
from anyserve.telemetry.log import EventLogWriter, merge, read_events
from anyserve.telemetry.runs import RunDirectory, create_run
from anyserve.telemetry.storyteller import Leg, Storyteller


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(tmp_path, "story", 1, datetime(2026, 11, 23, tzinfo=UTC))


def story() -> list[Envelope]:
    teller = Storyteller()
    started = RunStarted(run="r", scenario="story", seed=1, planned_requests=1, planned_s=1.0)
    teller.say("player", 0, started)
    end = teller.request("player/1/1", [Leg("s1")])
    teller.say("player", end + 1, RunEnded(reason="completed"))
    return teller.envelopes


def write(path: Path, envelopes: list[Envelope]) -> None:
    with EventLogWriter(path) as log:
        log.write_all(envelopes)


def test_what_the_recorder_missed_the_origin_knows(run: RunDirectory) -> None:
    envelopes = story()
    own = [one for one in envelopes if one.source == "player"]
    write(run.events, [one for one in envelopes if one not in own[1:3]])
    write(run.path / "origin-player.jsonl", own)

    finished = finish_run(run, kind="live")

    assert finished.summary.complete
    assert finished.summary.requests.completed == 1
    assert [path.name for path in run.path.glob("*.jsonl")] == ["events.jsonl"]
    assert len(list(read_events(run.events))) == len(envelopes)
    assert json.loads(run.summary.read_text())["requests"]["completed"] == 1


def test_what_nobody_recorded_makes_the_run_incomplete(run: RunDirectory) -> None:
    envelopes = story()
    lost = [one for one in envelopes if one.source == "player"][1]
    write(run.events, [one for one in envelopes if one is not lost])
    expectation = {"metric": "requests.failed", "op": "==", "value": 0}
    run.scenario.write_text(json.dumps({"expectations": [expectation]}))

    finished = finish_run(run, kind="live")

    assert list(finished.summary.incomplete_because) == ["1 events missing"]
    assert not finished.as_expected


def test_finishing_twice_changes_nothing(run: RunDirectory) -> None:
    write(run.events, story())
    first = finish_run(run, kind="live")
    before = (run.events.read_bytes(), run.summary.read_bytes())

    assert finish_run(run, kind="live") == first
    assert (run.events.read_bytes(), run.summary.read_bytes()) == before


def test_a_large_log_is_kept_compressed(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "COMPRESS_FROM_BYTES", 100)
    envelopes = story()
    write(run.events, envelopes)
    finish_run(run, kind="live")

    assert run.events.name == "events.jsonl.zst"
    assert not (run.path / "events.jsonl").exists()
    assert load_events(run) == (merge([envelopes]), ())
    finish_run(run, kind="live")
    assert run.events.name == "events.jsonl.zst"


def test_a_torn_log_says_so(run: RunDirectory) -> None:
    write(run.events, story())
    with run.events.open("ab") as file:
        file.write(b'{"t":1,"sour')

    assert "the end of a log is torn" in finish_run(run, kind="live").summary.incomplete_because


def test_a_run_without_events_is_no_run(run: RunDirectory) -> None:
    with pytest.raises(UsageError, match="recorded no events"):
        finish_run(run, kind="live")


def test_a_resolved_scenario_that_cannot_be_read_is_empty(run: RunDirectory) -> None:
    run.scenario.write_text("no json")

    assert read_resolved(run) == finish.Resolved()
