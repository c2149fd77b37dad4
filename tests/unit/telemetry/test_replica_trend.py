from __future__ import annotations

from anyserve.core.events import ReplicaLoad
from anyserve.core.messages import Load
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.trend import LENGTH_S, STEP_S, Trend
from anyserve.telemetry.views import TrendPoint

S = 1_000_000_000


def test_a_step_keeps_the_highest_of_each() -> None:
    trend = Trend()
    trend.load(3 * S, Load(running=1, waiting=4, tokens_per_s=10.0))
    trend.load(4 * S, Load(running=3, waiting=2, kv_usage=0.5))
    trend.ttft(5 * S, 80.0)
    trend.ttft(5 * S, 40.0)
    trend.load(6 * S, Load(running=2))
    assert trend.view() == (
        TrendPoint(3 * S, 4, 3, 0.5, 10.0, 80.0),
        TrendPoint(6 * S, 0, 2, None, 0.0, None),
    )


def test_it_holds_five_minutes_and_no_more() -> None:
    trend = Trend()
    for second in range(2000):
        trend.load(second * S, Load(running=second))
    points = trend.view()
    assert len(points) == LENGTH_S // STEP_S
    assert points[-1].at_ns - points[0].at_ns == (LENGTH_S - STEP_S) * S
    trend.load(5000 * S, Load(running=1))
    assert trend.view() == (TrendPoint(4998 * S, 0, 1, None, 0.0),)


def test_what_is_heard_late_belongs_to_the_newest_step() -> None:
    trend = Trend()
    trend.load(9 * S, Load(running=1))
    trend.ttft(8 * S, 70.0)
    assert trend.view() == (TrendPoint(9 * S, 0, 1, None, 0.0, 70.0),)


def test_a_clock_that_was_set_back_begins_anew() -> None:
    trend = Trend()
    trend.load(9000 * S, Load(running=1))
    trend.load(3 * S, Load(running=2))
    assert [point.running for point in trend.view()] == [2]


def test_the_reducer_keeps_five_minutes_of_a_replica_where_its_history_keeps_one() -> None:
    teller = Storyteller()
    for second in range(400):
        report = ReplicaLoad(replica="r1", load=Load(running=second % 7))
        teller.say("r1", second * S, report)
    teller.request("p/1/1", [Leg("r1", prefill_ns=S)], intended_ns=390 * S)
    reducer = Reducer()
    reducer.apply_all(sorted(teller.envelopes, key=lambda one: one.t))
    replica = reducer.snapshot().replicas[0]
    assert replica.history[0].at_ns == 339 * S
    assert replica.trend[0].at_ns <= 105 * S
    assert max(point.running or 0 for point in replica.trend) == 6
    assert [point.ttft_ms for point in replica.trend if point.ttft_ms] == [replica.ttft_p95_ms]
