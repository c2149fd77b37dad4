"""Who said what to whom about one request."""

from __future__ import annotations

from anyserve.telemetry.conversation import conversation
from anyserve.telemetry.reducer import Reducer
from anyserve.telemetry.storyteller import Leg, Storyteller

MS = 1_000_000


def test_a_delegated_request_is_told_in_order() -> None:
    teller = Storyteller()
    legs = [Leg("s1", end="delegate", routed=False), Leg("h1", "decode.heavy")]
    teller.request("player/1/1", legs)
    said = conversation(teller.envelopes)
    assert [(one.sender, one.to, one.message) for one in said] == [
        ("player", "", "(offered)"),
        ("player", "s1", "entry"),
        ("s1", "scheduler", "delegate"),
        ("scheduler", "", "(counted)"),
        ("scheduler", "h1", "assign"),
        ("h1", "scheduler", "started"),
        ("h1", "player", "frame"),
        ("player", "", "(first token)"),
        ("h1", "scheduler", "ended"),
        ("player", "scheduler", "settled"),
    ]
    assert "delegation 1: decode → decode.heavy" in [one.summary for one in said]


def test_a_lost_attempt_is_submitted_again() -> None:
    teller = Storyteller()
    teller.request("player/1/1", [Leg("s1", end="lost"), Leg("s2", scheduler_queue_ns=MS)])
    said = [(one.to, one.message) for one in conversation(teller.envelopes)]
    assert ("player", "attempt_lost") in said
    assert said.count(("scheduler", "submit")) == 2
    assert ("player", "accepted") in said


def test_the_reducer_remembers_all_of_it() -> None:
    teller = Storyteller()
    teller.request("player/1/1", [Leg("s1", end="lost"), Leg("s2", scheduler_queue_ns=MS)])
    reducer = Reducer()
    reducer.apply_all(teller.envelopes)
    heard = reducer.events_of("player/1/1")
    assert conversation(heard) == conversation(teller.envelopes)
    names = [segment.kind for segment in reducer.trace("player/1/1").segments]
    assert names == [kind for kind, _ in teller.expected["player/1/1"]]
    assert reducer.events_of("player/1/2") == ()
