"""Which events stand in the panel, and which share a line."""

from __future__ import annotations

from anyserve.core.events import (
    AnyEvent,
    FaultInjected,
    ReplicaChanged,
    RequestOutcome,
    RequestReentered,
    RunStarted,
    WorkerChanged,
)
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.storyteller import Storyteller
from anyserve.telemetry.views import NoticeView
from anyserve.tui.views.notices import chosen

S = 1_000_000_000
RUN = RunStarted(run="r", scenario="s", seed=0, planned_requests=1, planned_s=1.0)


def state(replica: str, name: str) -> ReplicaChanged:
    return ReplicaChanged(replica=replica, state=name, incarnation=1)


def heard(*said: tuple[int, AnyEvent]) -> tuple[NoticeView, ...]:
    teller = Storyteller()
    for at_s, event in said:
        teller.say(getattr(event, "replica", "player"), at_s * S, event)
    reducer = Reducer()
    reducer.apply_all(teller.envelopes)
    return reducer.snapshot().notices


def listed(*said: tuple[int, AnyEvent]) -> list[str]:
    return [one.text for one in chosen(heard(*said), errors_only=False)]


def start(replica: str, at_s: int) -> list[tuple[int, AnyEvent]]:
    return [
        (at_s, state(replica, "starting")),
        (at_s, WorkerChanged(replica=replica, state="started", pid=1)),
        (at_s + 1, WorkerChanged(replica=replica, state="loading", detail="the model 20%")),
        (at_s + 9, WorkerChanged(replica=replica, state="ready", detail="vllm")),
        (at_s + 9, state(replica, "ready")),
    ]


def test_a_start_takes_two_lines_however_many_replicas_there_are() -> None:
    starts = [event for n in (10, 2, 1) for event in start(f"r{n}", n)]
    said = sorted(starts, key=lambda one: one[0])
    assert listed(*said, (30, RUN)) == [
        "run r of s, seed 0",
        "3 replicas are ready: r1 r2 r10",
        "3 replicas are starting: r1 r2 r10",
    ]


def test_what_happens_in_between_separates() -> None:
    fault = FaultInjected(action="kill", target="r1")
    assert listed(
        (1, state("r1", "ready")), (2, state("r2", "ready")), (3, fault), (9, state("r1", "ready"))
    ) == ["r1 is ready", "fault: kill r1", "2 replicas are ready: r1 r2"]


def test_long_after_is_another_line() -> None:
    assert listed((1, state("r1", "ready")), (100, state("r2", "ready"))) == [
        "r2 is ready",
        "r1 is ready",
    ]


def test_a_replica_that_changes_to_and_fro_has_a_line_for_each_time() -> None:
    said = [(1, state("r1", "saturated")), (2, state("r2", "saturated")), (3, state("r1", "ready"))]
    assert listed(*said, (4, state("r1", "saturated"))) == [
        "r1 is saturated",
        "r1 is ready",
        "2 replicas are saturated: r1 r2",
    ]


def test_requests_to_which_the_same_happens_share_a_line() -> None:
    back = [
        (n, RequestReentered(id=f"p/1/{n}", attempt=1, replica="", kind="lost", count=1))
        for n in (1, 2, 12)
    ]
    failed = [
        (13, RequestOutcome(id=f"p/1/{n}", outcome="failed", end_ns=13 * S, message="no"))
        for n in (3, 4)
    ]
    assert listed(*back, *failed) == [
        "2 requests failed: no: p/1/3 p/1/4",
        "3 requests came back (lost): p/1/1 p/1/2 p/1/12",
    ]


def test_a_lost_replica_always_stands_alone() -> None:
    lost = [(1, state("r1", "lost")), (1, state("r2", "lost"))]
    died = WorkerChanged(replica="r3", state="exited", detail="signal 9")
    assert listed(*lost, (2, died)) == [
        "worker of r3 exited: signal 9",
        "r2 is lost",
        "r1 is lost",
    ]


def test_with_a_filter_everything_is_there_by_itself() -> None:
    notices = heard(*start("r1", 1), *start("r2", 20))
    assert len(chosen(notices, errors_only=False, everything=True)) == len(notices) == 10
