from __future__ import annotations

from pathlib import Path

import pytest

from anyserve.core.events import Envelope, EpochChanged, PhaseStarted
from anyserve.telemetry.log import EventLogWriter, ReadReport, merge, read_events
from anyserve.telemetry.storyteller import Leg, Storyteller

NAMES = ("events.jsonl", "events.jsonl.zst")


def said(seq: int, *, t: int = 0, source: str = "s1", boot: str = "") -> Envelope:
    return Envelope(
        t=t, source=source, incarnation=1, seq=seq, event=EpochChanged(epoch=seq), boot=boot
    )


@pytest.fixture
def story() -> list[Envelope]:
    teller = Storyteller()
    teller.request("p/1/0", [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy")])
    return teller.envelopes


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(tmp_path: Path, story: list[Envelope], name: str) -> None:
    with EventLogWriter(tmp_path / name, buffered_events=3) as writer:
        writer.write_all(story)
    report = ReadReport()
    assert list(read_events(tmp_path / name, report)) == story
    assert report.events == len(story)
    assert report.problems == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_flushed_event_is_seen_before_close(tmp_path: Path, name: str) -> None:
    writer = EventLogWriter(tmp_path / name)
    writer.write(said(0))
    assert list(read_events(tmp_path / name)) == []
    writer.flush()
    assert list(read_events(tmp_path / name)) == [said(0)]
    writer.close()
    writer.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_log_is_appended_to(tmp_path: Path, name: str) -> None:
    for seq in range(2):
        with EventLogWriter(tmp_path / name) as writer:
            writer.write(said(seq))
    assert list(read_events(tmp_path / name)) == [said(0), said(1)]


def test_a_torn_last_line_is_reported_and_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLogWriter(path) as writer:
        writer.write_all([said(0), said(1)])
    path.write_bytes(path.read_bytes()[:-9])
    report = ReadReport()
    assert list(read_events(path, report)) == [said(0)]
    assert report.torn
    assert report.problems == ("the end of the log is torn",)


def test_writing_on_after_a_tear_loses_only_the_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"t":1,"sou')
    with EventLogWriter(path) as writer:
        writer.write(said(0))
    report = ReadReport()
    assert list(read_events(path, report)) == [said(0)]
    assert (report.malformed, report.torn) == (1, False)


def test_an_unfinished_zstd_frame_gives_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.zst"
    writer = EventLogWriter(path)
    writer.write(said(0))
    writer.flush()
    whole = path.read_bytes()
    writer.write_all(said(seq) for seq in range(1, 400))
    writer.close()
    path.write_bytes(path.read_bytes()[: len(whole) + 20])
    assert next(iter(read_events(path))) == said(0)


def test_damage_in_a_zstd_log_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.zst"
    path.write_bytes(b"this is no zstd frame")
    report = ReadReport()
    assert list(read_events(path, report)) == []
    assert report.torn


def test_unknown_types_are_counted_and_are_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = [
        b'{"t":1,"source":"s1","incarnation":1,"seq":0,"event":{"type":"request.sung","id":"x"}}',
        b"",
        b'{"t":2,"source":"s1","incarnation":1,"seq":1,"event":{"type":"epoch.changed","epoch":1}}',
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    report = ReadReport()
    assert len(list(read_events(path, report))) == 1
    assert report.unknown == {"request.sung": 1}
    assert report.problems == ()


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"not json",
        b"\xff\xfe\x00",
        b'{"t":2,"source":"s1","incarnation":1,"seq":0,"event":{"type":"epoch.changed"}}',
    ],
)
def test_malformed_lines_are_counted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line + b"\n")
    report = ReadReport()
    assert list(read_events(path, report)) == []
    assert report.problems == ("1 malformed lines",)


def test_missing_events_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLogWriter(path) as writer:
        writer.write_all([said(0), said(3)])
    report = ReadReport()
    list(read_events(path, report))
    assert report.problems == ("2 events missing",)


def test_merging_drops_repeats_and_orders_one_boot_by_time() -> None:
    first = [said(0, t=5), said(1, t=30)]
    second = [said(0, t=10, source="s2"), said(1, t=30)]
    assert [one.t for one in merge([first, second])] == [5, 10, 30]


def test_equal_times_keep_their_order_of_arrival() -> None:
    arrived = [said(seq, t=7, source=source) for seq, source in enumerate("dbca")]
    assert merge([arrived]) == arrived


def test_boots_are_ordered_each_by_its_own_clock() -> None:
    arrived = [
        said(0, t=900, source="far", boot="b"),
        said(0, t=2, boot="a"),
        said(1, t=800, source="far", boot="b"),
        said(1, t=1, boot="a"),
    ]
    assert [(one.boot, one.t) for one in merge([arrived])] == [
        ("b", 800),
        ("a", 1),
        ("b", 900),
        ("a", 2),
    ]


def test_events_without_defaults_round_trip(tmp_path: Path) -> None:
    envelope = Envelope(
        t=1, source="p", incarnation=1, seq=0, event=PhaseStarted(name="warm", planned_s=2.0)
    )
    with EventLogWriter(tmp_path / "e.jsonl") as writer:
        writer.write(envelope)
    assert b"boot" not in (tmp_path / "e.jsonl").read_bytes()
    assert list(read_events(tmp_path / "e.jsonl")) == [envelope]
