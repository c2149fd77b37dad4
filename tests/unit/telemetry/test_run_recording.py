"""A recorded run on its time axis; its plan; its series; how its expectations stand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyserve.core.events import (
    Envelope,
    FaultInjected,
    PhaseStarted,
    ReplicaChanged,
    RunEnded,
    RunStarted,
)
from anyserve.core.spec import Expectation
from anyserve.errors import UsageError
from anyserve.telemetry.judge import Judge, Standing
from anyserve.telemetry.recording import record
from anyserve.telemetry.run_plan import RunPlan, read_run_plan
from anyserve.telemetry.run_times import parse_time
from anyserve.telemetry.series import MOST_BUCKETS, NS_PER_S, Series
from anyserve.telemetry.storyteller import Leg, Storyteller

S = 1_000_000_000


def _run() -> list[Envelope]:
    teller = Storyteller()
    ready = ReplicaChanged(replica="r1", state="ready", incarnation=1)
    teller.say("r1", 3 * S, ready)
    started = RunStarted(run="x", scenario="x", seed=0, planned_requests=1, planned_s=9.0)
    teller.say("player", 5 * S, started)
    teller.say("player", 5 * S, PhaseStarted(name="one", planned_s=4.0))
    teller.request("player/1/1", [Leg("r1")], intended_ns=6 * S)
    teller.say("player", 9 * S, PhaseStarted(name="two", planned_s=5.0))
    teller.say("player", 10 * S, FaultInjected(action="kill", target="r1"))
    teller.say("player", 14 * S, RunEnded(reason="completed"))
    return teller.envelopes


def test_zero_is_where_the_traffic_begins() -> None:
    recording = record(_run())
    assert (recording.start_s, recording.end_s) == (-2.0, 9.0)
    assert recording.index_at(-2.0) == 1
    assert recording.index_at(-2.1) == 0
    assert recording.index_at(99) == len(recording.envelopes)


def test_marks_and_phases_are_where_one_wants_to_go() -> None:
    recording = record(_run())
    first = recording.mark_after(0)
    assert first is not None
    assert isinstance(recording.envelopes[first].event, PhaseStarted)
    fault = recording.mark_after(recording.index_at(4.5))
    assert fault is not None
    assert isinstance(recording.envelopes[fault].event, FaultInjected)
    second = recording.phase_after(first + 1)
    assert second is not None
    assert recording.phase_after(second + 1) is None
    assert recording.phase_before(second) == first
    assert recording.phase_before(first) is None


def test_what_another_boot_says_stands_at_the_time_before_it() -> None:
    teller = Storyteller(clocks={"far": ("other", 77_000 * S)})
    started = RunStarted(run="x", scenario="x", seed=0, planned_requests=1, planned_s=9.0)
    teller.say("player", 5 * S, started)
    teller.say("far", 6 * S, ReplicaChanged(replica="far", state="ready", incarnation=1))
    teller.say("player", 7 * S, RunEnded(reason="completed"))
    recording = record(teller.envelopes)
    assert list(recording.times_ns) == [5 * S, 5 * S, 7 * S]


def test_an_empty_log_has_no_length() -> None:
    recording = record([])
    assert (recording.start_s, recording.end_s, recording.index_at(1)) == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("47", 47), ("1:05", 65), ("1:01:05", 3665), ("0:12.5", 12.5), ("50%", 30), ("end", 60),
     (" -3s ", -3)],
)  # fmt: skip
def test_times_are_read_as_people_type_them(text: str, seconds: float) -> None:
    assert parse_time(text, 60.0) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "5 m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, 60.0)


@given(times=st.lists(st.integers(0, 10_000 * NS_PER_S), min_size=1, max_size=60))
def test_a_series_counts_everything_in_bounded_memory(times: list[int]) -> None:
    series = Series()
    for at_ns in sorted(times):
        series.offer(at_ns)
    for at_ns in times:
        series.complete(at_ns)
    view = series.view()
    assert sum(view.offered) == len(times)
    assert sum(view.completed) == len(times)
    assert len(view.offered) == len(view.completed) <= MOST_BUCKETS
    assert view.start_ns + len(view.offered) * view.bucket_ns > max(times)


def _expect(text: str, metric: str, op: str, value: float) -> Expectation:
    return msgspec.convert({"metric": metric, "op": op, "value": value, "text": text}, Expectation)


def test_expectations_hold_so_far_until_the_run_ends() -> None:
    judge = Judge([_expect("a", "requests.failed", "==", 0), _expect("b", "faults", ">", 1)])
    envelopes = _run()
    for envelope in envelopes[:-1]:
        judge.add(envelope)
    assert [one.standing for one in judge.judged()] == [Standing.HOLDING, Standing.NOT_YET]
    judge.add(envelopes[-1])
    assert [one.standing for one in judge.judged()] == [Standing.MET, Standing.FAILED]
    assert [one.actual for one in judge.judged()] == [0, 1]


def test_nothing_is_met_before_the_first_request_and_nothing_is_final_before_the_end() -> None:
    judge = Judge([_expect("a", "requests.failed", "==", 0)])
    envelopes = _run()
    seen = []
    for envelope in envelopes:
        seen.append(judge.judged()[0].standing)
        judge.add(envelope)
    assert seen[0] is Standing.NOT_YET
    assert set(seen) == {Standing.NOT_YET, Standing.HOLDING}
    assert judge.judged()[0].standing is Standing.MET


def test_a_run_too_long_to_follow_is_judged_at_its_end() -> None:
    judge = Judge([_expect("a", "requests.failed", "==", 0)], most_requests=0)
    for envelope in _run():
        judge.add(envelope)
    (judged,) = judge.judged()
    assert judged.standing is Standing.UNKNOWN
    assert "by the log" in judged.note


def test_a_plan_is_read_from_the_run_directory(tmp_path: Path) -> None:
    (tmp_path / "scenario.resolved.json").write_text(
        '{"file": "a.yaml", "seed": 3, "expectations": [], "slo": {"*": {"ttft_ms": 2000}}}'
    )
    (tmp_path / "plan.json").write_text(
        '{"phases": [{"name": "p", "start_ns": 0, "end_ns": 9000000000}],'
        ' "requests": [{"at_ns": 5, "n": 0}, {"at_ns": 2, "n": 1}]}'
    )
    plan = read_run_plan(tmp_path)
    assert (plan.file, plan.seed, plan.length_s) == ("a.yaml", 3, 9.0)
    assert plan.offers_ns == (2, 5)
    assert plan.slo["*"].ttft_ms == 2000


def test_a_plan_that_is_not_there_is_empty(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("not json")
    assert read_run_plan(tmp_path) == RunPlan()
    assert RunPlan().delegation_limit is None
