from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from anyserve.core.events import Envelope, EpochChanged
from anyserve.errors import UsageError
from anyserve.telemetry.log import EventLogWriter
from anyserve.telemetry.source import EventSource, ListSource, ReplaySource, SourceKind


def said(seq: int, *, t_ms: int, boot: str = "a") -> Envelope:
    event = EpochChanged(epoch=1)
    return Envelope(t=t_ms * 1_000_000, source=boot, incarnation=1, seq=seq, event=event, boot=boot)


def log(tmp_path: Path, envelopes: Sequence[Envelope]) -> Path:
    path = tmp_path / "events.jsonl"
    with EventLogWriter(path) as writer:
        writer.write_all(envelopes)
    return path


async def batches(source: EventSource) -> list[list[int]]:
    return [[one.seq for one in batch] async for batch in source]


async def test_a_list_comes_in_batches() -> None:
    source = ListSource([said(seq, t_ms=seq) for seq in range(5)], batch_events=2)
    assert await batches(source) == [[0, 1], [2, 3], [4]]
    assert source.kind is SourceKind.TEST


async def test_a_closed_list_ends() -> None:
    source = ListSource([said(seq, t_ms=seq) for seq in range(5)], batch_events=1)
    seen = []
    async for batch in source:
        seen.append(batch[0].seq)
        if len(seen) == 2:
            await source.close()
    assert seen == [0, 1]


async def test_a_replay_at_once_waits_for_nothing(tmp_path: Path) -> None:
    path = log(tmp_path, [said(1, t_ms=90_000), said(0, t_ms=1)])
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    source = ReplaySource(path, sleep=sleep)
    assert await batches(source) == [[0, 1]]
    assert slept == []
    assert source.report.events == 2
    assert source.kind is SourceKind.REPLAY
    assert source.facts == {"log": str(path)}


@pytest.mark.parametrize(("speed", "waits"), [(1.0, [0.995, 2.0]), (2.0, [0.4975, 1.0])])
async def test_a_paced_replay_keeps_the_pace(
    tmp_path: Path, speed: float, waits: list[float]
) -> None:
    path = log(tmp_path, [said(0, t_ms=0), said(1, t_ms=5), said(2, t_ms=1000), said(3, t_ms=3000)])
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert await batches(ReplaySource(path, speed=speed, sleep=sleep)) == [[0, 1], [2], [3]]
    assert slept == pytest.approx(waits)


async def test_clocks_of_two_boots_are_never_subtracted(tmp_path: Path) -> None:
    path = log(tmp_path, [said(0, t_ms=0), said(0, t_ms=10**9, boot="b")])
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert await batches(ReplaySource(path, speed=1.0, sleep=sleep)) == [[0], [0]]
    assert slept == []


async def test_closing_a_replay_while_it_waits_ends_it(tmp_path: Path) -> None:
    path = log(tmp_path, [said(0, t_ms=0), said(1, t_ms=1000)])

    async def sleep(_seconds: float) -> None:
        await source.close()

    source = ReplaySource(path, speed=1.0, sleep=sleep)
    assert await batches(source) == [[0]]


async def test_an_empty_log_has_no_batches(tmp_path: Path) -> None:
    assert await batches(ReplaySource(log(tmp_path, []), speed=1.0)) == []


@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_a_speed_must_be_above_zero(tmp_path: Path, speed: float) -> None:
    with pytest.raises(UsageError, match="cannot replay"):
        ReplaySource(tmp_path / "x", speed=speed)
