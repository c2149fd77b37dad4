from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from anyserve.core.events import (
    AnyEvent,
    AttemptEnded,
    AttemptFirstToken,
    AttemptStarted,
    Envelope,
    RequestOffered,
    RequestOutcome,
    RequestQueued,
    RequestReentered,
    RequestRejected,
    RequestRouted,
    RequestSubmitted,
)
from anyserve.core.messages import Times
from anyserve.errors import AnyServeError
from anyserve.telemetry.storyteller import Leg, Storyteller
from anyserve.telemetry.trace import (
    SegmentKind,
    Trace,
    build_trace,
    find_request,
    notable_requests,
    render_trace,
    to_json,
)
from anyserve.telemetry.trace_model import HOPPING, WAITING

MS = 1_000_000
ID = "player/1/7"
FAR = {"h1": ("boot-2", -7_000_000_000_000)}
ENTRY = Leg("s1", routed=False, end="delegate", queue_ns=2 * MS)
HEAVY = Leg("h1", "decode.heavy", scheduler_queue_ns=30 * MS, queue_ns=5 * MS, engine_wait_ns=MS)


def shape(trace: Trace) -> list[tuple[SegmentKind, int]]:
    return [(segment.kind, segment.duration_ns) for segment in trace.segments]


def lengths(trace: Trace) -> list[tuple[str, float]]:
    return [(segment.name, segment.duration_ns / MS) for segment in trace.segments]


def tell(
    *events: tuple[str, float, AnyEvent], boots: dict[str, str] | None = None
) -> list[Envelope]:
    """Envelopes from (source, milliseconds, event)."""
    return [
        Envelope(
            t=int(t_ms * MS),
            source=source,
            incarnation=1,
            seq=seq,
            event=event,
            boot=(boots or {}).get(source, "a"),
        )
        for seq, (source, t_ms, event) in enumerate(events)
    ]


def offered(**changes: Any) -> RequestOffered:
    event = RequestOffered(
        id=ID, capability="decode", prompt_tokens=8, max_tokens=4, entry="scheduler", intended_ns=0
    )
    return msgspec.structs.replace(event, **changes)


def routed(attempt: int, received_ms: float, **changes: Any) -> RequestRouted:
    event = RequestRouted(
        id=ID,
        attempt=attempt,
        replica="s1",
        capability="decode",
        policy="least-loaded",
        reason="least",
        received_ns=int(received_ms * MS),
    )
    return msgspec.structs.replace(event, **changes)


def outcome(name: str, end_ms: float, **changes: Any) -> RequestOutcome:
    event = RequestOutcome(id=ID, outcome=name, end_ns=int(end_ms * MS))
    return msgspec.structs.replace(event, **changes)


def started(attempt: int, received_ms: float) -> AttemptStarted:
    return AttemptStarted(
        id=ID, attempt=attempt, capability="decode", received_ns=int(received_ms * MS)
    )


def queued(received_ms: float, submission: int = 1) -> RequestQueued:
    return RequestQueued(
        id=ID,
        capability="decode",
        depth=3,
        received_ns=int(received_ms * MS),
        submission=submission,
    )


@pytest.mark.parametrize(
    "legs",
    [
        [Leg("s1", scheduler_queue_ns=3 * MS)],
        [Leg("s1", routed=False, queue_ns=9 * MS)],
        [ENTRY, HEAVY],
        [Leg("s1", end="refuse", reason="stale_credit"), Leg("s2", queue_ns=MS)],
        [Leg("s1", end="return", reason="draining", queue_ns=8 * MS), Leg("s2")],
        [Leg("s1", end="lost", back_ns=40 * MS), Leg("s2")],
        [Leg("s1", routed=False, end="lost"), Leg("s1", end="delegate"), HEAVY],
    ],
)
def test_the_trace_finds_the_segments_of_the_story(legs: list[Leg]) -> None:
    teller = Storyteller()
    teller.request(ID, legs, intended_ns=5 * MS, client_delay_ns=2 * MS)
    trace = build_trace(teller.envelopes, ID)
    assert shape(trace) == teller.expected[ID]
    assert sum(segment.duration_ns for segment in trace.segments) == trace.total_ns
    assert not trace.clock_skew


def test_hops_count_delegations_and_not_recoveries() -> None:
    teller = Storyteller()
    teller.request(ID, [Leg("s1", end="lost"), Leg("s1", end="delegate"), HEAVY])
    trace = build_trace(teller.envelopes)
    assert (trace.hops, trace.delegations, trace.recoveries) == (2, 1, 1)
    assert [back.kind for back in trace.comebacks] == ["lost", "delegate"]


def test_decisions_say_when_and_why() -> None:
    teller = Storyteller()
    teller.request(ID, [ENTRY, HEAVY])
    (decision,) = build_trace(teller.envelopes, ID).decisions
    assert (decision.replica, decision.capability) == ("h1", "decode.heavy")
    assert decision.at_ns == 1 * MS + 2 * MS + 1 * MS + 30 * MS
    assert decision.excluded == (("other_capability", 1),)


def test_on_another_boot_the_ways_share_what_is_left_over() -> None:
    teller = Storyteller(clocks=FAR)
    teller.request(ID, [replace(HEAVY, assign_ns=2 * MS, back_ns=6 * MS)])
    trace = build_trace(teller.envelopes, ID)
    assert trace.total_ns == sum(duration for _, duration in teller.expected[ID])
    far = [segment for segment in trace.segments if segment.estimated]
    assert [(one.kind, one.duration_ns) for one in far] == [
        (SegmentKind.TRANSIT, 4 * MS),
        (SegmentKind.DELIVERY, 4 * MS),
    ]
    known = [one for one in shape(trace) if one[0] in WAITING]
    assert known == [one for one in teller.expected[ID] if one[0] in WAITING]
    assert not trace.clock_skew


def test_an_unmeasured_stay_elsewhere_gets_the_rest_and_not_the_ways() -> None:
    boots = {"s1": "b"}
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 3, routed(1000, 1)),
        ("s1", 9_006, started(1000, 9_004)),
        ("p", 50, outcome("cancelled", 50)),
        boots=boots,
    )
    trace = build_trace(events)
    assert lengths(trace) == [
        ("client delay", 0),
        ("transit", 1),
        ("scheduler queue", 2),
        ("transit", 0),
        ("replica queue", 2),
        ("prefill", 45),
    ]


def test_a_contradiction_between_clocks_is_flagged_and_still_sums() -> None:
    events = tell(
        ("p", 5, offered()), ("scheduler", 9, routed(1000, 3)), ("p", 20, outcome("failed", 20))
    )
    trace = build_trace(events)
    assert trace.clock_skew
    assert trace.skew_ns == 2 * MS
    assert lengths(trace) == [
        ("client delay", 5),
        ("transit", 0),
        ("scheduler queue", 4),
        ("transit", 11),
    ]
    assert "clock skew" in render_trace(trace)


def test_an_end_before_the_beginning_is_flagged() -> None:
    trace = build_trace(tell(("p", 5, offered(intended_ns=9 * MS)), ("p", 6, outcome("failed", 6))))
    assert trace.clock_skew
    assert trace.total_ns == 0
    assert "failed 0 ms" in render_trace(trace)


def test_more_time_elsewhere_than_passed_here_is_flagged() -> None:
    times = Times(received_ns=0, prefill_ns=40 * MS, decode_ns=60 * MS)
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 1, routed(1000, 1)),
        ("s1", 0, started(1000, 0)),
        ("s1", 90, AttemptEnded(id=ID, attempt=1000, status="completed", n_tokens=4, times=times)),
        ("p", 81, outcome("completed", 81, attempt=1000, n_tokens=4)),
        boots={"s1": "b"},
    )
    trace = build_trace(events)
    assert (trace.clock_skew, trace.skew_ns) == (True, 20 * MS)
    assert sum(segment.duration_ns for segment in trace.segments) == 81 * MS
    assert min(segment.duration_ns for segment in trace.segments) >= 0


def test_time_going_backwards_on_another_boot_is_flagged() -> None:
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 10, routed(1000, 14)),
        ("p", 20, outcome("failed", 20)),
        boots={"scheduler": "b"},
    )
    assert build_trace(events).skew_ns == 4 * MS


def test_a_wait_that_ends_with_the_outcome() -> None:
    events = tell(
        ("p", 0, offered()), ("scheduler", 1, queued(1)), ("p", 40, outcome("expired", 40))
    )
    assert lengths(build_trace(events)) == [
        ("client delay", 0),
        ("transit", 1),
        ("scheduler queue", 39),
    ]


def test_a_wait_across_a_scheduler_restart_is_one_wait() -> None:
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 1, queued(1)),
        ("scheduler", 21, queued(20)),
        ("scheduler", 30, routed(2000, 20)),
        ("p", 40, outcome("failed", 40)),
    )
    assert ("scheduler queue", 29) in lengths(build_trace(events))


@pytest.mark.parametrize(("received_ns", "wait"), [(2 * MS, 3), (None, None)])
def test_a_rejection(received_ns: int | None, wait: float | None) -> None:
    rejected = RequestRejected(id=ID, code="queue_full", detail="64 wait", received_ns=received_ns)
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 5, rejected),
        ("p", 6, outcome("rejected", 6, code="queue_full", message="no room")),
    )
    trace = build_trace(events)
    found = dict(lengths(trace))
    assert found.get("scheduler queue") == wait
    assert found["delivery"] == 1
    text = render_trace(trace)
    assert "queue_full: 64 wait" in text
    assert "message: no room" in text


def test_what_came_after_a_cancel_is_cut_off() -> None:
    events = tell(
        ("p", 0, offered()),
        ("p", 10, outcome("cancelled", 10)),
        ("scheduler", 12, routed(1000, 1)),
        ("s1", 14, started(1000, 13)),
    )
    trace = build_trace(events)
    assert lengths(trace) == [("client delay", 0), ("transit", 1), ("scheduler queue", 9)]
    assert trace.decisions == ()
    assert not trace.clock_skew


@pytest.mark.parametrize(("status", "made"), [("cancelled", 3), ("completed", 9)])
def test_an_engine_that_goes_on_after_the_client_had_enough_is_cut_off(
    status: str, made: int
) -> None:
    """The client's stop string came with token 3; the engine noticed later, or was quicker."""
    times = Times(received_ns=3 * MS, prefill_ns=10 * MS, decode_ns=40 * MS)
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 2, routed(1000, 1)),
        ("s1", 3, started(1000, 3)),
        ("s1", 13, AttemptFirstToken(id=ID, attempt=1000)),
        ("p", 30, outcome("completed", 30, attempt=1000, n_tokens=3)),
        ("s1", 53, AttemptEnded(id=ID, attempt=1000, status=status, n_tokens=made, times=times)),
    )
    trace = build_trace(events)

    assert not trace.clock_skew
    assert lengths(trace)[-2:] == [("prefill", 10), ("decode", 17)]
    assert trace.total_ns == 30 * MS


def test_a_request_in_flight_is_traced_until_now() -> None:
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 2, routed(1000, 1)),
        ("s1", 4, started(1000, 3)),
        ("s1", 20, AttemptFirstToken(id=ID, attempt=1000)),
    )
    assert lengths(build_trace(events, now_ns=50 * MS))[-2:] == [("prefill", 16), ("decode", 30)]
    trace = build_trace(events)
    assert trace.total_ns == 20 * MS
    assert "running 20 ms" in render_trace(trace)
    assert "so far 20 ms" in render_trace(trace)


def test_an_answer_from_an_overtaken_attempt_ends_the_trace_there() -> None:
    """The scheduler thought it lost, the origin re-submitted, then the first answer came."""
    times = Times(received_ns=3 * MS, prefill_ns=10 * MS, decode_ns=40 * MS)
    lost = RequestReentered(id=ID, attempt=1000, replica="s1", kind="lost", count=1)
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 2, routed(1000, 1)),
        ("s1", 3, started(1000, 3)),
        ("scheduler", 20, lost),
        ("p", 21, RequestSubmitted(id=ID, submission=2, entry="scheduler")),
        ("scheduler", 23, routed(1001, 22, submission=2, replica="s2")),
        ("s2", 25, started(1001, 24)),
        ("s1", 53, AttemptEnded(id=ID, attempt=1000, status="completed", n_tokens=4, times=times)),
        ("p", 55, outcome("completed", 55, attempt=1000, n_tokens=4)),
    )
    trace = build_trace(events)
    assert trace.total_ns == 55 * MS
    assert [decision.replica for decision in trace.decisions] == ["s1"]
    assert not trace.clock_skew


@pytest.mark.parametrize("told", [True, False])
def test_an_attempt_that_was_held_up_on_its_way_is_no_part_of_it(told: bool) -> None:
    """A network is cut, the scheduler dies, its next life sends the request elsewhere; then the
    network is back."""
    times = Times(received_ns=33 * MS, prefill_ns=10 * MS, decode_ns=10 * MS)
    late = Times(received_ns=90 * MS, prefill_ns=5 * MS)
    first = [("scheduler", 2.0, routed(1001, 1))] if told else []
    events = tell(
        ("p", 0, offered()),
        *first,
        ("scheduler", 32, routed(2001, 31, replica="h1")),
        ("h1", 33, started(2001, 33)),
        ("h1", 53, AttemptEnded(id=ID, attempt=2001, status="completed", n_tokens=4, times=times)),
        ("p", 55, outcome("completed", 55, attempt=2001, n_tokens=4, served_by="h1")),
        ("s1", 90, started(1001, 90)),
        ("s1", 95, AttemptEnded(id=ID, attempt=1001, status="cancelled", n_tokens=1, times=late)),
    )
    trace = build_trace(events)

    assert not trace.clock_skew
    assert trace.total_ns == 55 * MS
    assert lengths(trace)[-4:] == [
        ("engine wait", 0), ("prefill", 10), ("decode", 10), ("delivery", 2)
    ]  # fmt: skip


def test_a_worker_that_died_says_how_far_it_came() -> None:
    times = Times(received_ns=3 * MS, prefill_ns=10 * MS, decode_ns=40 * MS)
    died = AttemptEnded(
        id=ID, attempt=1000, status="worker_died", n_tokens=2, times=times, message="killed"
    )
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 2, routed(1000, 1)),
        ("s1", 3, started(1000, 3)),
        ("s1", 53, died),
        (
            "scheduler",
            55,
            RequestReentered(id=ID, attempt=1000, replica="s1", kind="lost", count=1),
        ),
        ("p", 60, RequestSubmitted(id=ID, submission=2, entry="scheduler", resumed=2)),
        ("scheduler", 62, routed(1001, 61, submission=2)),
        ("p", 70, outcome("failed", 70)),
    )
    trace = build_trace(events)
    (recovery,) = [one for one in trace.segments if one.kind is SegmentKind.RECOVERY]
    assert (recovery.duration_ns, recovery.note) == (7 * MS, "killed")
    assert "resumes 2 tokens" in render_trace(trace)


def test_an_assignment_lost_with_its_replica() -> None:
    lost = RequestReentered(
        id=ID, attempt=1000, replica="s1", kind="lost", count=1, detail="last will"
    )
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 2, routed(1000, 1)),
        ("scheduler", 9, lost),
        ("p", 10, RequestSubmitted(id=ID, submission=2, entry="scheduler")),
        ("p", 30, outcome("expired", 30)),
    )
    assert lengths(build_trace(events))[3:] == [("transit", 7), ("recovery", 1), ("transit", 20)]


def test_an_attempt_that_went_on_after_it_was_given_up_is_lost_work_until_then() -> None:
    """Its replica hung, was lost, and went on later: its own times run past the next attempt."""
    times = Times(received_ns=2 * MS, decode_ns=300 * MS)
    log = tell(
        ("o1", 0, offered()),
        ("scheduler", 1, routed(1, 1)),
        ("s1", 2, started(1, 2)),
        ("o1", 100, RequestSubmitted(id=ID, submission=2, entry="scheduler")),
        ("scheduler", 101, routed(2, 101, replica="s2", submission=2)),
        ("s2", 102, started(2, 102)),
        ("s1", 302, AttemptEnded(id=ID, attempt=1, status="completed", n_tokens=4, times=times)),
        (
            "s2",
            402,
            AttemptEnded(
                id=ID,
                attempt=2,
                status="completed",
                n_tokens=4,
                times=Times(received_ns=102 * MS, decode_ns=300 * MS),
            ),
        ),
        ("o1", 403, outcome("completed", 403, attempt=2)),
    )
    trace = build_trace(log, ID)
    assert trace.skew_ns == 0
    assert (SegmentKind.LOST_WORK, 98 * MS) in shape(trace)
    assert (SegmentKind.DECODE, 300 * MS) in shape(trace)


def test_an_attempt_that_ended_in_the_queue_did_not_run() -> None:
    ended = AttemptEnded(
        id=ID,
        attempt=1000,
        status="failed",
        n_tokens=0,
        times=Times(received_ns=3 * MS, queue_ns=6 * MS),
    )
    events = tell(
        ("p", 0, offered()),
        ("scheduler", 2, routed(1000, 1)),
        ("s1", 9, ended),
        ("p", 10, outcome("failed", 10, attempt=1000)),
    )
    assert lengths(build_trace(events))[-2:] == [("replica queue", 6), ("delivery", 1)]


def test_a_lone_first_token_event_adds_no_segment() -> None:
    events = tell(
        ("p", 0, offered()),
        ("s1", 4, AttemptFirstToken(id=ID, attempt=1)),
        ("p", 9, outcome("failed", 9)),
    )
    assert lengths(build_trace(events)) == [("client delay", 0), ("transit", 9)]


def test_a_log_without_the_request_says_so() -> None:
    with pytest.raises(AnyServeError, match="no request in this log"):
        build_trace([])
    with pytest.raises(AnyServeError, match="no request 'x'"):
        build_trace(tell(("p", 0, offered())), "x")


def test_requests_are_found_by_their_ending() -> None:
    events = tell(("p", 0, offered()), ("q", 0, offered(id="other/1/7")))
    assert find_request(events, ID) == ID
    assert find_request(events, "player/1/7") == ID
    with pytest.raises(AnyServeError, match="2 requests end in '7'"):
        find_request(events, "7")
    with pytest.raises(AnyServeError, match="no request '8'"):
        find_request(events, "8")
    assert find_request(events[:1], "7") == ID


def test_notable_requests_are_the_bad_then_the_slow() -> None:
    teller = Storyteller()
    teller.request("p/1/0", [Leg("s1")])
    teller.request("p/1/1", [Leg("s1", decode_ns=500 * MS)])
    teller.request("p/1/2", [Leg("s1")], outcome="failed")
    teller.say("player", 9, offered(id="p/1/3"))
    notable = notable_requests(teller.envelopes, count=3)
    assert [trace.id for trace in notable] == ["p/1/3", "p/1/2", "p/1/1"]


def test_the_footer_is_computed_from_the_segments() -> None:
    teller = Storyteller()
    teller.request(ID, [ENTRY, HEAVY], client_delay_ns=MS)
    trace = build_trace(teller.envelopes, ID)
    assert trace.first_token_ns is not None
    waiting = trace.time_in(WAITING, until_ns=trace.first_token_ns)
    hopping = trace.time_in(HOPPING, until_ns=trace.first_token_ns)
    assert waiting == (1 + 2 + 30 + 5 + 1) * MS
    assert hopping == 3 * MS
    assert "first token 63 ms  (39 ms waiting, 3 ms hopping)" in render_trace(trace)


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [20, 60, 80, 120])
def test_rendered_lines_keep_to_the_width(width: int, ascii_only: bool) -> None:
    teller = Storyteller()
    teller.request(ID, [Leg("s1", end="lost"), Leg("s2", end="delegate"), HEAVY])
    text = render_trace(build_trace(teller.envelopes, ID), width, ascii=ascii_only)
    assert max(map(len, text.splitlines())) <= max(width, 60)
    assert text.isascii() is ascii_only


def test_the_waterfall_reads_like_this() -> None:
    teller = Storyteller()
    teller.request(ID, [replace(ENTRY, queue_ns=0), HEAVY])
    assert render_trace(build_trace(teller.envelopes, ID), 88).splitlines() == [
        "request player/1/7 · decode · 64 in / 11 of 11 out · 2 hops · completed 160 ms",
        "",
        "                              0 ms       80 ms",
        "client delay    player        ▏ 0 ms",
        "transit         player→s1     ▎ 1 ms",
        "entry queue     s1            ▏ 0 ms",
        "transit         s1→scheduler  ▎ 1 ms · delegate: too_long, decode→decode.heavy",
        "scheduler queue scheduler     ████▍ 30 ms · position 1 of decode.heavy",
        "transit         scheduler→h1      ▎ 1 ms",
        "replica queue   h1                ▊ 5 ms",
        "engine wait     h1                 ▎ 1 ms",
        "prefill         h1                 ██▉ 20 ms · 64 tok",
        "decode          h1                    ██████████████▍ 100 ms · 11 tok · 10.0 ms/tok",
        "delivery        h1→player                           ▎ 1 ms",
        "                                      ▲ first token",
        "",
        "first token 60 ms  (36 ms waiting, 3 ms hopping)",
        "",
        "why here",
        "  s1 delegated it: too_long, decode→decode.heavy",
        "  at 32 ms least-loaded chose h1 for decode.heavy: fewest requests per slot (1 eligible)",
        "    ✔ h1           score 0.25     credit 3    run 1    wait 0",
        "      not considered: 1 other_capability",
    ]


def test_foreign_text_cannot_steer_the_terminal() -> None:
    events = tell(("p", 0, offered()), ("p", 5, outcome("failed", 5, message="\x1b[2Jgone\n")))
    assert "\x1b" not in render_trace(build_trace(events))


def test_json_has_the_segments_by_name() -> None:
    teller = Storyteller()
    teller.request(ID, [ENTRY, HEAVY])
    trace = build_trace(teller.envelopes, ID)
    data = msgspec.json.decode(msgspec.json.encode(to_json(trace)))
    assert data["schema"] == "anyserve.trace/1"
    assert [one["name"] for one in data["segments"]] == [one.name for one in trace.segments]
    assert data["decisions"][0]["excluded"] == {"other_capability": 1}
    assert data["hops"] == 2
