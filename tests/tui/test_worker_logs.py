"""The log of a worker on the whole screen, and how its file is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from screens import FACTS, SIZES, Clock, answer, live_app, press, replay_app, shown, text_after

from anyserve.tui.logfile import LogKind, LogTail, log_path
from anyserve.tui.screens.log import LogScreen
from anyserve.tui.screens.replica import ReplicaScreen
from anyserve.tui.widgets.grid import LiveGrid

OPEN = ("down", "down", "enter", "o")
"""From the overview to the log of r3."""


def line(n: int) -> str:
    if n % 20 == 7:
        return f"(MainProcess pid=4000) WARNING 11-27 05:11:{n:02d} [kernel.py:467] fell back, {n}"
    if n == 33:
        return (
            f"(MainProcess pid=4000) ERROR 11-27 05:11:{n:02d} [core.py:12] " + "far too long " * 20
        )
    return f"(MainProcess pid=4000) INFO 11-27 05:11:{n:02d} [loggers.py:335] step {n}"


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The logs of a run, which stands in the present directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/story-7/logs")
    folder.mkdir(parents=True)
    (folder / "worker-r3.log").write_text("".join(f"{line(n)}\n" for n in range(50)))
    (folder / "replica-r3.log").write_text("r3 joined\n")
    (folder / "worker-r1.log").touch()
    return folder


RUN = {**FACTS, "run_dir": "runs/story-7"}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_log_has_the_whole_screen(
    size: tuple[int, int], clock: Clock, logs: Path, golden: Callable[[str, str], None]
) -> None:
    async with shown(replay_app(clock, facts=RUN), size) as pilot:
        golden(f"log-{size[0]}x{size[1]}", await text_after(pilot, *OPEN))


async def test_it_is_followed_until_the_cursor_moves_and_again_with_f(
    clock: Clock, logs: Path
) -> None:
    app = live_app(clock, facts=RUN)
    async with shown(app) as pilot:
        text = await text_after(pilot, *OPEN)
        assert "step 49" in text
        assert "log of the worker r3 · 50 lines" in text
        with (logs / "worker-r3.log").open("a") as file:
            file.write("one more\n")
        assert "▌one more" in await text_after(pilot)
        moved = await text_after(pilot, "g")
        assert "▌" + line(0)[:40] in moved
        with (logs / "worker-r3.log").open("a") as file:
            file.write("and another\n")
        assert "and another" not in await text_after(pilot)
        assert "▌and another" in await text_after(pilot, "f")
        await press(pilot, "escape")
        assert isinstance(app.screen, ReplicaScreen)


async def test_a_filter_and_e_show_what_matters_and_y_copies_a_line(
    clock: Clock, logs: Path
) -> None:
    app = replay_app(clock, facts=RUN)
    async with shown(app) as pilot:
        await press(pilot, *OPEN)
        assert "4 of 50 lines" in await text_after(pilot, "e")
        await press(pilot, "slash")
        await answer(pilot, "level:warn fell")
        text = await text_after(pilot)
        assert "3 of 50 lines" in text
        assert "/ level:warn fell" in text
        await press(pilot, "y")
        assert '"number"' not in app.clipboard
        assert "fell back, 47" in app.clipboard
        assert '"line": 48' in app.clipboard
        await press(pilot, "escape", "e")
        assert "50 lines" in await text_after(pilot)


async def test_tab_shows_what_the_replicas_own_process_wrote(clock: Clock, logs: Path) -> None:
    async with shown(replay_app(clock, facts=RUN)) as pilot:
        text = await text_after(pilot, *OPEN, "tab")
        assert "log of the replica r3 · 1 line" in text
        assert "r3 joined" in text
        assert "step 49" in await text_after(pilot, "tab")


async def test_a_long_line_is_broken_and_nothing_of_it_is_lost(clock: Clock, logs: Path) -> None:
    app = replay_app(clock, facts=RUN)
    async with shown(app, (90, 40)) as pilot:
        await press(pilot, *OPEN)
        assert isinstance(app.screen, LogScreen)
        pieces = [row for row in app.screen.query_one(LiveGrid).items if row.line.number == 34]
        assert len(pieces) > 2
        assert "".join(piece.text.strip() for piece in pieces).count("far too long") == 20
        await pilot.resize_terminal(170, 40)
        await pilot.pause()
        wide = [row for row in app.screen.query_one(LiveGrid).items if row.line.number == 34]
        assert len(wide) < len(pieces)


@pytest.mark.parametrize(
    ("facts", "keys", "said"),
    [
        (FACTS, OPEN, "it is not known where this run is recorded"),
        (
            {**FACTS, "run_dir": "runs/elsewhere"},
            OPEN,
            "runs/elsewhere/logs is not on this machine",
        ),
        (RUN, ("down", "enter", "o"), "there is no log of the worker: runs/story-7/logs/worker-r2"),
        (RUN, ("enter", "o"), "the worker has written nothing to runs/story-7/logs/worker-r1.log"),
    ],
    ids=["unknown", "elsewhere", "none", "empty"],
)
async def test_where_there_is_no_log_it_says_why(
    facts: dict[str, str], keys: tuple[str, ...], said: str, clock: Clock, logs: Path
) -> None:
    async with shown(replay_app(clock, facts=facts)) as pilot:
        assert said in await text_after(pilot, *keys)


def test_a_cluster_that_says_where_its_logs_are_is_believed() -> None:
    facts = {"log.worker r1": "/elsewhere/worker-r1.log", "run_dir": "runs/x"}
    assert log_path(facts, "r1", LogKind.WORKER) == Path("/elsewhere/worker-r1.log")
    assert log_path(facts, "r1", LogKind.REPLICA) == Path("runs/x/logs/replica-r1.log")


def texts(tail: LogTail) -> list[str]:
    return [one.text for one in tail.lines() or ()]


def test_only_what_was_added_is_read_and_a_line_may_come_in_two_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("one\ntw")
    tail = LogTail(path)
    assert texts(tail) == ["one", "tw"]
    before = tail.lines()
    assert tail.lines() is before
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert [(one.number, one.text) for one in tail.lines() or ()] == [
        (1, "one"),
        (2, "two"),
        (3, "three"),
    ]
    assert tail.whole


def test_of_a_long_log_the_end_is_kept_and_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"line {n}\n" for n in range(1000)))
    by_lines = LogTail(path, most_lines=3)
    assert texts(by_lines) == ["line 997", "line 998", "line 999"]
    by_bytes = LogTail(path, most_bytes=30)
    assert texts(by_bytes) == ["line 997", "line 998", "line 999"]
    assert not by_lines.whole
    assert not by_bytes.whole
    with path.open("a") as file:
        file.writelines(f"more {n}\n" for n in range(1000))
    assert texts(by_bytes) == ["more 997", "more 998", "more 999"]


def test_a_log_that_was_replaced_or_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    tail = LogTail(path)
    assert tail.lines() is None
    path.write_text("old and long\n")
    assert texts(tail) == ["old and long"]
    path.write_text("new\n")
    assert texts(tail) == ["new"]
    path.unlink()
    assert tail.lines() is None


def test_progress_bars_and_colours_look_as_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"loading   0%\rloading 100%\r\n\x1b[1;33mWARN\x1b[0m\tlow \xff\n")
    assert texts(LogTail(path)) == ["loading 100%", "WARN    low \N{REPLACEMENT CHARACTER}"]
