"""The status line, and which events get a line of their own."""

from __future__ import annotations

import io

import pytest

from anyserve.cli.diagnostics import Diagnostics
from anyserve.cli.output import Output
from anyserve.cli.session import Session
from anyserve.cli.settings import Settings
from anyserve.cli.terminal import Terminal
from anyserve.cli.up.live import (
    MOST_NOTICES,
    JsonDisplay,
    PlainDisplay,
    display_for,
    is_notable,
    status_line,
)
from anyserve.core.events import PhaseStarted, PolicyFailed, RunStarted
from anyserve.core.spec import ClusterSpec
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.source import ListSource
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.views import Level, NoticeView

CLUSTER = ClusterSpec(name="tiny", capabilities=(), replicas=())


def started(teller: Storyteller) -> None:
    run = RunStarted(run="r", scenario="s", seed=1, planned_requests=9, planned_s=20.0)
    teller.say("player", 0, run)


@pytest.fixture
def err() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def session(
    out: io.StringIO, err: io.StringIO, tmp_path_factory: pytest.TempPathFactory
) -> Session:
    terminal = Terminal(environ={})
    output, diagnostics = Output(terminal, out), Diagnostics(terminal, err)
    return Session(Settings(), output, diagnostics, {}, tmp_path_factory.mktemp("cwd"))


def test_the_status_line_tells_done_of_planned_and_unknown_is_a_dash() -> None:
    teller = Storyteller()
    started(teller)
    empty = Reducer()
    empty.apply_all(teller.envelopes)
    teller.register("s1", {"decode": 512})
    teller.request("player/1/1", [Leg("s1")])
    teller.request("player/1/2", [Leg("s1")], intended_ns=5_000_000_000, outcome="failed")
    reducer = Reducer()
    reducer.apply_all(teller.envelopes)

    assert "ttft p50/p95 –/– ms" in status_line(empty.snapshot(), 4)  # noqa: RUF001 - as printed
    line = status_line(reducer.snapshot(), 4)
    assert line.startswith("   5 / 20 s  offered 2 of 9  done 1  queue 0  running 0/4  ")
    assert line.endswith("failed 1")


@pytest.mark.parametrize(
    ("level", "text", "notable"),
    [
        (Level.INFO, "phase burst", True),
        (Level.INFO, "s1 delegated player/1/2", False),
        (Level.WARN, "anything", True),
        (Level.ERROR, "anything", True),
    ],
)
def test_routine_stays_silent(level: Level, text: str, notable: bool) -> None:
    assert is_notable(NoticeView(0, level, "x", text)) is notable


async def test_a_flood_of_notices_is_cut(session: Session, err: io.StringIO) -> None:
    teller = Storyteller()
    started(teller)
    teller.say("player", 1_500_000_000, PhaseStarted(name="all", planned_s=1.0))
    for number in range(30):
        failed = PolicyFailed(policy="p", id=f"player/1/{number}", error="no")
        teller.say("scheduler", 2_000_000_000, failed)
    display = PlainDisplay(session, CLUSTER, quiet=False)
    await display.show(ListSource(teller.envelopes))

    lines = err.getvalue().splitlines()
    assert lines[0] == "   1.5 s  phase all"
    assert len(lines) == MOST_NOTICES


async def test_quiet_says_nothing_and_still_knows_what_is_open(
    session: Session, out: io.StringIO, err: io.StringIO
) -> None:
    teller = Storyteller()
    teller.request("player/1/1", [Leg("s1")])
    display = display_for(session, "none", CLUSTER)
    await display.show(ListSource(teller.envelopes[:2]))

    assert (out.getvalue(), err.getvalue()) == ("", "")
    assert display.waiting_for() == "1 request to end"


async def test_json_goes_on_counting_when_its_reader_has_left(session: Session) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    teller = Storyteller()
    teller.request("player/1/1", [Leg("s1")])
    gone = Session(
        session.settings,
        Output(session.terminal, Closed()),
        session.diagnostics,
        {},
        session.cwd,
    )
    display = JsonDisplay(gone)
    await display.show(ListSource(teller.envelopes[:2], batch_events=1))

    assert display.waiting_for() == "1 request to end"
