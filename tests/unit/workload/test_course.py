"""What is sent when: closed loops, sessions, and the end of traffic."""

from __future__ import annotations

from typing import Any

from simulating import PAIR, compiled, merged, simulate

from anyserve.core.events import RequestOffered, RequestOutcome
from anyserve.workload.course import Course
from anyserve.workload.traffic import PlannedRequest, TrafficPlan

SECOND = 1_000_000_000


def plan_of(stream: dict[str, Any], *, duration: str = "30s", seed: int = 1) -> TrafficPlan:
    return compiled(scenario_of(stream, duration), seed=seed).plan


def scenario_of(stream: dict[str, Any], duration: str = "30s") -> dict[str, Any]:
    whole = {"capability": "decode", "prompt_tokens": 32, "output_tokens": 8, **stream}
    data = merged(PAIR, {"traffic": {"phases": [{"name": "all", "duration": duration}]}})
    data["traffic"]["streams"] = {"chat": whole}
    return data


def test_closed_loop_users_each_send_one_after_the_other() -> None:
    plan = plan_of({"concurrency": 3, "think": "1s", "requests": 8})

    assert [one.after for one in plan.requests] == [None, None, None, 0, 1, 2, 3, 4]
    assert [one.think_ns for one in plan.requests] == [0, 0, 0] + 5 * [SECOND]


def test_requests_of_several_streams_follow_those_of_their_own() -> None:
    whole = scenario_of({"concurrency": 2, "requests": 6})
    turns = {"rate": 2, "arrivals": "poisson", "sessions": {"turns": 3, "think": "1s"}}
    whole["traffic"]["streams"]["talk"] = whole["traffic"]["streams"]["chat"] | turns
    whole["traffic"]["streams"]["talk"].pop("concurrency")
    whole["traffic"]["streams"]["talk"].pop("requests")
    requests = compiled(whole).plan.requests

    assert [one.n for one in requests] == list(range(len(requests)))
    followed = [(one, requests[one.after]) for one in requests if one.after is not None]
    talks = [pair for pair in followed if pair[0].stream == "talk"]
    assert len(followed) == 4 + len(talks)
    assert all(before.n < one.n and before.stream == one.stream for one, before in followed)
    assert all(one.segments[: len(before.segments)] == before.segments for one, before in talks)


def test_a_user_sends_the_next_request_after_the_answer_and_the_thought() -> None:
    events = simulate(compiled(scenario_of({"concurrency": 2, "think": "500ms", "requests": 6})))

    offered = [one.event for one in events if isinstance(one.event, RequestOffered)]
    ends = {
        one.event.id: one.event.end_ns for one in events if isinstance(one.event, RequestOutcome)
    }
    assert len(offered) == 6
    first, _, third, *_ = offered
    assert third.intended_ns == ends[first.id] + SECOND // 2
    open_at_once = [
        sum(one.intended_ns <= at.intended_ns < ends[one.id] for one in offered) for at in offered
    ]
    assert max(open_at_once) == 2


def test_the_end_of_traffic_stops_the_users() -> None:
    what = compiled(scenario_of({"concurrency": 2, "think": "1s"}, duration="5s"))
    events = simulate(what)

    started = min(one.t for one in events if one.event.__class__.__name__ == "RunStarted")
    offered = [one.event for one in events if isinstance(one.event, RequestOffered)]
    assert 6 <= len(offered) < len(what.plan.requests)
    assert all(one.intended_ns - started < 5 * SECOND for one in offered)


def test_a_turn_holds_all_turns_before_it() -> None:
    plan = plan_of({"rate": 0.1, "sessions": {"turns": 3, "think": "1s"}})

    first, second, third = plan.requests[:3]
    assert (first.after, second.after, third.after) == (None, 0, 1)
    assert second.segments[:2] == (*first.segments, (first.answer, 8))
    assert third.segments[:4] == (*second.segments, (second.answer, 8))
    assert (first.prompt_tokens, second.prompt_tokens, third.prompt_tokens) == (32, 72, 112)
    assert third.answer == 0
    names = [set((one.affinity or "").split("/")) for one in (first, second, third)]
    assert names[0] & names[1]
    assert names[1] & names[2]


def planned(n: int, after: int | None = None, **more: Any) -> PlannedRequest:
    return PlannedRequest(
        n=n,
        at_ns=0,
        stream="s",
        phase="all",
        capability="decode",
        segments=((n + 1, 4),),
        max_tokens=1,
        after=after,
        **more,
    )


def course(*requests: PlannedRequest) -> Course:
    phases = compiled(scenario_of({"rate": 1}, duration="10s")).plan.phases
    return Course(TrafficPlan(1, phases, requests))


def test_the_turns_after_one_that_failed_are_left_out() -> None:
    first = planned(0, answer=7)
    talk = course(first, planned(1, 0, answer=8), planned(2, 1))
    talk.sent()

    assert talk.after(first, SECOND, completed=False) is None
    assert talk.left == 0


def test_a_closed_loop_user_goes_on_after_a_failure() -> None:
    first = planned(0)
    loop = course(first, planned(1, 0, think_ns=SECOND))

    assert loop.after(first, SECOND, completed=False) == 2 * SECOND


def test_what_would_come_after_the_end_is_left_out_with_all_that_follows() -> None:
    first = planned(0)
    loop = course(first, planned(1, 0), planned(2, 1))
    loop.sent()

    assert loop.after(first, 10 * SECOND, completed=True) is None
    assert loop.left == 0
