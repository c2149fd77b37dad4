from __future__ import annotations

from collections.abc import Sequence

import pytest

from anyserve.core.events import (
    AnyEvent,
    AttemptFirstToken,
    BusTrouble,
    FaultInjected,
    PhaseStarted,
    PolicyFailed,
    ProcessExited,
    ReplicaChanged,
    RequestDelegated,
    RequestOutcome,
    RequestReentered,
    RunEnded,
    RunStarted,
    SchedulerStarted,
    WorkerChanged,
)
from anyserve.telemetry.notices import notice
from anyserve.telemetry.text import clean, format_ns
from anyserve.telemetry.views import Level

CASES: Sequence[tuple[AnyEvent, Level, str]] = [
    (ReplicaChanged(replica="s1", state="ready", incarnation=1), Level.INFO, "s1 is ready"),
    (
        ReplicaChanged(replica="s1", state="lost", incarnation=1, detail="last will"),
        Level.ERROR,
        "s1 is lost: last will",
    ),
    (WorkerChanged(replica="s1", state="hung"), Level.ERROR, "worker of s1 hung"),
    (WorkerChanged(replica="s1", state="ready"), Level.INFO, "worker of s1 ready"),
    (
        SchedulerStarted(epoch=1, policy="p2c", replayed=-1),
        Level.INFO,
        "scheduler life 1, policy p2c, no journal",
    ),
    (
        SchedulerStarted(epoch=2, policy="p2c", replayed=9),
        Level.INFO,
        "scheduler life 2, policy p2c, 9 records replayed",
    ),
    (
        PolicyFailed(policy="x:Y", id="p/1/0", error="boom\x1b[31m"),
        Level.WARN,
        "policy x:Y failed on p/1/0: boom [31m",
    ),
    (BusTrouble(kind="reconnected", detail=""), Level.INFO, "bus: reconnected"),
    (BusTrouble(kind="lag", detail="9 MiB"), Level.WARN, "bus: lag: 9 MiB"),
    (
        ProcessExited(name="s1", exit_code=-9, restart_in_s=0.5),
        Level.ERROR,
        "s1 exited with -9, restarts in 0.5 s",
    ),
    (ProcessExited(name="s1", exit_code=1), Level.ERROR, "s1 exited with 1, given up"),
    (
        RequestDelegated(
            id="p/1/0",
            attempt=1,
            replica="s1",
            reason="too_long",
            from_capability="a",
            to_capability="b",
            count=1,
        ),
        Level.INFO,
        "s1 delegated p/1/0, a → b: too_long",
    ),
    (
        RequestReentered(id="p/1/0", attempt=1, replica="s1", kind="refuse", count=1),
        Level.WARN,
        "p/1/0 came back from s1 (refuse)",
    ),
    (
        RequestReentered(id="p/1/0", attempt=1, replica="", kind="lost", count=1),
        Level.WARN,
        "p/1/0 came back (lost)",
    ),
    (
        RequestOutcome(id="p/1/0", outcome="failed", end_ns=0, code="engine_error"),
        Level.ERROR,
        "p/1/0 failed: engine_error",
    ),
    (RequestOutcome(id="p/1/0", outcome="expired", end_ns=0), Level.WARN, "p/1/0 expired"),
    (
        RunStarted(run="r1", scenario="mixed", seed=7, planned_requests=1, planned_s=1),
        Level.INFO,
        "run r1 of mixed, seed 7",
    ),
    (PhaseStarted(name="burst", planned_s=1), Level.INFO, "phase burst"),
    (
        FaultInjected(action="kill", target="s1", line=22, detail="SIGKILL"),
        Level.WARN,
        "fault: kill s1 (line 22): SIGKILL",
    ),
    (FaultInjected(action="drain", target="s1"), Level.WARN, "fault: drain s1"),
    (RunEnded(reason="done"), Level.INFO, "run ended: done"),
]


@pytest.mark.parametrize(("event", "level", "text"), CASES)
def test_notices(event: AnyEvent, level: Level, text: str) -> None:
    assert notice(event) == (level, text)


@pytest.mark.parametrize(
    "event",
    [
        RequestOutcome(id="p/1/0", outcome="completed", end_ns=0),
        AttemptFirstToken(id="p/1/0", attempt=1),
    ],
)
def test_routine_makes_no_notice(event: AnyEvent) -> None:
    assert notice(event) is None


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 ms"),
        (900, "0.9 µs"),
        (40_000, "40 µs"),
        (400_000, "0.4 ms"),
        (3_100_000, "3.1 ms"),
        (92_000_000, "92 ms"),
        (331_400_000, "331 ms"),
        (1_210_000_000, "1.21 s"),
        (125_000_000_000, "2:05 min"),
        (-92_000_000, "-92 ms"),
    ],
)
def test_durations_have_the_unit_that_suits_them(duration_ns: int, text: str) -> None:
    assert format_ns(duration_ns) == text


def test_foreign_text_stays_on_one_line() -> None:
    assert clean("a\nb\x1b[2Jc\u202ed") == "a b [2Jc d"
